"""What the page shows besides its own controls, as HTML: answers, progress, run cards and reports.

Every view holds both languages; the page's style hides one. Texts, names and log lines are strangers' words: the
templates escape everything, and a whole report stands in a frame in which nothing may run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any

from sentifactory.corpus.wording import name_label
from sentifactory.evaluation.charts import build_training_curve
from sentifactory.evaluation.page import flatten_card, make_environment
from sentifactory.ui.jobs import Job
from sentifactory.ui.wording import LANGUAGES, WORDS

if TYPE_CHECKING:
    from jinja2 import Environment

_CURRENT = re.compile(r'(id="choose-(?:en|zh)") checked')
_CARD_KEYS = (
    "status", "recipe.model_name_or_path", "recipe.finetuning_type", "recipe.dataset", "recipe.learning_rate",
    "recipe.num_train_epochs", "seed", "model_class", "device", "steps", "wall_time_s", "speed.samples_per_s",
    "memory.peak_rss_bytes", "result.eval_accuracy", "result.eval_macro_f1", "result.eval_loss",
    "result.train_loss", "leak_check.status", "started_at", "finished_at", "fingerprint", "error",
)  # fmt: skip


@cache
def _load_environment() -> Environment:
    """Return the templates of this room, and behind them the report's, whose curves are drawn here as well."""
    from jinja2 import ChoiceLoader, PackageLoader

    environment = make_environment()
    assert environment.loader is not None  # noqa: S101 - that is how it was built
    environment.loader = ChoiceLoader([PackageLoader("sentifactory.ui"), environment.loader])
    environment.globals.update(words=WORDS)
    return environment


def _render(template: str, **values: Any) -> str:
    return _load_environment().get_template(template).render(**values)


def show_answers(rows: Sequence[Mapping[str, Any]], models: Sequence[tuple[str, str]]) -> str:
    """Return what each model says to each text, with a bar for each label.

    Args:
        rows: from `engines.side_by_side.answer_side_by_side`.
        models: side (`base` or `tuned`) and name of each model, in the order of the answers.
    """
    return _render("answers.html.j2", rows=rows, models=models, name_label=name_label)


def show_progress(job: Job | None) -> str:
    """Return how far a training has come: its state, steps, losses and last lines."""
    if job is None:
        return _render("progress.html.j2", job=None)
    card = job.card
    done, total = int(card.get("steps") or 0), int(card.get("max_steps") or 0)
    return _render(
        "progress.html.j2",
        job=job,
        done=done,
        total=total,
        share=min(100, round(100 * done / total)) if total else 0,
        figures=[row for row in card.get("metrics", []) if "eval_loss" in row][-1:],
        curve=build_training_curve(card),
    )


def show_card(name: str, card: Mapping[str, Any] | None) -> str:
    """Return a model's run card: the figures that are asked for first, the curve, and all the rest to unfold."""
    if card is None:
        return _render("card.html.j2", name=name, card=None)
    lines = dict(flatten_card(card))
    return _render(
        "card.html.j2",
        name=name,
        card=card,
        first=[(key, lines[key]) for key in _CARD_KEYS if lines.get(key) not in (None, "None")],
        lines=lines,
        curve=build_training_curve(card),
    )


def show_report(page: str, title: str, language: str) -> str:
    """Return a whole report in a frame of its own, in which no script runs, opened in a language.

    Raises:
        KeyError: when there is no such language.
    """
    in_language = _CURRENT.sub(r"\1", page).replace(f'id="choose-{language}"', f'id="choose-{language}" checked')
    label = f"{title}: {LANGUAGES[language]}"
    return (
        f'<iframe class="sf-report" sandbox="" title="{escape(label)}" tabindex="0" '
        f'srcdoc="{escape(in_language)}"></iframe>'
    )
