"""The HTML that the page shows: answers, progress, run cards and reports.

Every view holds both languages; the page's style hides one. Texts, names and log lines are untrusted: the templates
escape everything, and a whole report is shown in a sandboxed frame.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.bilingual import Sentence, name_label
from sentifactory.corpus.files.encodings import show_undecodable
from sentifactory.errors import SentiFactoryError
from sentifactory.evaluation.report.report_page import flatten_card, make_environment
from sentifactory.pages.charts import build_training_curve
from sentifactory.redaction import redact_paths
from sentifactory.system.formats import CELL_CHARS, cut_text
from sentifactory.ui.error_sentences import describe_error
from sentifactory.ui.model_choices import OfferedRecipe
from sentifactory.ui.model_facts import ModelCard
from sentifactory.ui.offered_tasks import NEW_TASK, FileTasks, build_new_task
from sentifactory.ui.page_words import LANGUAGES, WORDS
from sentifactory.ui.publish_preview import PublishPreview
from sentifactory.ui.training_jobs import RUNNING, Job
from sentifactory.ui.training_summary import (
    count_steps,
    describe_end,
    describe_left,
    describe_now,
    find_best,
    find_loss,
    find_scores,
    is_training,
)
from sentifactory.ui.uploaded_file import SHOWN_COLUMNS, UploadedFile

if TYPE_CHECKING:
    from jinja2 import Environment


_SHOWN_LABELS = 12
_METHODS_ZH = {
    "full": "全量微调",
    "freeze": "冻结微调（只训练最后几层）",
    "lora": "LoRA 微调",
    "last_layers": "微调最后 {} 层与分类头",
    "head": "只训练分类头",
}
# Of a report within the page: no second head, no margins, no commands, as high as it is.
_EMBEDDED = (
    "html, body { overflow-y: hidden; background: transparent; } "
    "header .mark, header nav, .language, .command { display: none; } "
    ".page { max-width: none; padding: 0 .25rem 1rem; }"
)
_CURRENT = re.compile(r'(id="choose-(?:en|zh)") checked')


@cache
def _load_environment() -> Environment:
    """Return the templates of the page and those of the report, whose training curve the page shows as well."""
    from jinja2 import ChoiceLoader, PackageLoader

    environment = make_environment()
    assert environment.loader is not None  # noqa: S101 - set by make_environment
    environment.loader = ChoiceLoader([PackageLoader("sentifactory.ui"), environment.loader])
    environment.globals.update(words=WORDS)
    return environment


def _render(template: str, **values: Any) -> str:
    return _load_environment().get_template(template).render(**values)


def show_answers(rows: Sequence[Mapping[str, Any]], models: Sequence[tuple[str, str]]) -> str:
    """Return the answer of each model to each text, with a bar for each label.

    Args:
        rows: from `engines.side_by_side.answer_side_by_side`.
        models: side (`base` or `tuned`) and name of each model, in the order of the answers.
    """
    return _render("answers.html.j2", rows=rows, models=models, name_label=name_label)


def show_upload(file: UploadedFile) -> str:
    """Return the first rows of an uploaded file, with the columns of text and label marked."""
    return _render("upload.html.j2", file=file, n_columns=SHOWN_COLUMNS)


def show_labels(
    file: UploadedFile,
    *,
    reason: Sentence | None = None,
    advice: Sentence | None = None,
    tasks: FileTasks,
    task: str | None = None,
) -> str:
    """Return the labels of an uploaded file, and which tasks do not fit them and why.

    Args:
        file: what was uploaded.
        reason: why the chosen task does not fit the file, as a clause.
        advice: what to choose in its place.
        tasks: those for the file.
        task: the chosen one.
    """
    cells = file.cells.most_common(_SHOWN_LABELS)
    prompt = build_new_task(tasks.labels, "new").prompt_template if task == NEW_TASK and tasks.labels else ""
    return _render(
        "labels.html.j2",
        cells=[(cut_text(show_undecodable(cell.strip()), CELL_CHARS), n) for cell, n in cells],
        n_more=len(file.cells) - len(cells),
        reason=reason,
        advice=advice,
        prompt=prompt,
        misfits=tasks.misfits,
        heading="other_tasks",
    )


def show_misfits(misfits: Mapping[str, Sentence], heading: str) -> str:
    """Return which choices are not offered and why, under a heading of WORDS; "" where all are."""
    return _render("misfits.html.j2", misfits=misfits, heading=heading) if misfits else ""


def show_purpose(offered: OfferedRecipe | None) -> str:
    """Return what a recipe is for; in Chinese, since the files are English, what it does by its settings."""
    if offered is None:
        return ""
    settings = offered.recipe.settings
    method = _METHODS_ZH.get(str(settings.get("finetuning_type", "full")), "").format(settings.get("trainable_layers"))
    model = Path(str(settings.get("model_name_or_path"))).name
    epochs, rate = settings.get("num_train_epochs", 3), settings.get("learning_rate")
    zh = f"{method}：模型{model}，{epochs:g}轮" + (f"，学习率{rate:g}" if isinstance(rate, float) else "")
    return f'<p class="sf">{show_sentence(Sentence.write(offered.purpose, zh))}</p>'


def show_sentence(sentence: Sentence) -> str:
    """Return a sentence in both languages."""
    texts = (("en", "en", sentence.en), ("zh", "zh-CN", sentence.zh))
    return "".join(f'<span class="{name}" lang="{code}">{escape(text)}</span>' for name, code, text in texts)


def show_error(error: SentiFactoryError) -> str:
    """Return an error, to stand where it was made."""
    return f'<p class="sf sf-error" role="alert">{show_sentence(describe_error(error))}</p>'


def show_progress(job: Job | None) -> str:
    """Return the progress of a training: what it does or why it ended, its steps, scores, losses and time left."""
    if job is None:
        return _render("progress.html.j2", job=None)
    done, total = count_steps(job)
    is_busy = job.state == RUNNING and job.progress is not None and not is_training(job.progress)
    return _render(
        "progress.html.j2",
        job=job,
        now=describe_now(job),
        end=describe_end(job),
        done=done,
        total=total,
        share=min(100, round(100 * done / total, 1)) if total else 0,
        phase_total=job.progress["total"] if is_busy and job.progress is not None else None,
        tiles=_list_tiles(job),
        curve=build_training_curve(job.card) if total else None,
    )


def _list_tiles(job: Job) -> list[tuple[Sentence, Sentence, Sentence | None]]:
    """Return title, value and small print of the figures of a training."""
    tiles: list[tuple[Sentence, Sentence, Sentence | None]] = []
    if not count_steps(job)[1]:
        return tiles
    if (left := describe_left(job)) is not None:
        tiles.append((Sentence(*WORDS["time_left"]), left, None))
    scores = find_scores(job.card)
    if (best := find_best(scores)) is not None:
        last = scores[-1]
        for key, score in (("best", best), ("latest", last if last != best else None)):
            if score is not None:
                of = Sentence(f"{score.name.en}, step {score.step}", f"{score.name.zh}，第 {score.step} 步")
                tiles.append((Sentence(*WORDS[key]), Sentence(score.shown, score.shown), of))
    if (loss := find_loss(job.card)) is not None:
        shown = f"{loss:.4f}"
        tiles.append((Sentence(*WORDS["loss"]), Sentence(shown, shown), None))
    return tiles


def show_log(job: Job | None) -> str:
    """Return the last lines of a training's log."""
    lines = "\n".join(job.log) if job is not None else ""
    return f'<div class="sf"><pre tabindex="0">{escape(redact_paths(lines))}</pre></div>' if lines else ""


def show_card(name: str, card: ModelCard) -> str:
    """Return a model's card: what it answers, how good it is and what it took; all recorded values to unfold."""
    run = card.run
    return _render(
        "card.html.j2",
        name=name,
        card=card,
        lines={} if run is None else {key: redact_paths(value) for key, value in flatten_card(run)},
        curve=None if run is None else build_training_curve(run),
        name_label=name_label,
    )


def show_checking() -> str:
    """Return what is shown while a dry run of publishing takes its seconds."""
    return f'<p class="sf" role="status">{show_sentence(Sentence(*WORDS["checking"]))}</p>'


def show_publication(name: str, folder: str, preview: PublishPreview) -> str:
    """Return what publishing a model would upload, or why it would be refused.

    Args:
        name: of the model.
        folder: as the command is given it.
        preview: of the publication.
    """
    command = shlex.join(["sentifactory", "publish", folder, "--repo_id", preview.repo_id])
    return _render("publish.html.j2", name=name, preview=preview, command=command)


def show_report(page: str, title: str, language: str) -> str:
    """Return a whole report as a part of the page, opened in a language.

    Its frame runs no scripts. It counts as of this site, so that the page can make it as high as its content and
    switch its language (page.js). Its own mark and choice of language are hidden: the page has both.

    Raises:
        KeyError: when there is no such language.
    """
    in_language = _CURRENT.sub(r"\1", page).replace(f'id="choose-{language}"', f'id="choose-{language}" checked')
    embedded = in_language.replace("</head>", f"<style>{_EMBEDDED}</style></head>", 1)
    label = f"{title}: {LANGUAGES[language]}"
    return (
        f'<iframe class="sf-report" sandbox="allow-same-origin" title="{escape(label)}" '
        f'srcdoc="{escape(embedded)}"></iframe>'
    )


def show_errors(action: Callable[..., Any]) -> Callable[..., Any]:
    """Return an action whose user errors are shown on the page, in its words and its language."""
    import gradio

    @functools.wraps(action)
    def run(*chosen: Any) -> Any:
        try:
            return action(*chosen)
        except SentiFactoryError as error:
            raise gradio.Error(
                show_sentence(describe_error(error)),
                duration=None,
                title="",  # would be plain text, in one language
                print_exception=False,
            ) from error

    return run
