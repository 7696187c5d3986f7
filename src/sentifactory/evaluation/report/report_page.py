"""The page of a report: one self-contained HTML file in English and Chinese, suitable for printing.

It is rendered from `report.json` alone, so that the page of an old report can be rendered again. Review texts and
replies are untrusted: the template escapes everything, and the page's content security policy forbids scripts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sentifactory.bilingual import MODEL_NAMES, name_label
from sentifactory.evaluation.report import adaptation_words
from sentifactory.evaluation.report.figures import NO_CALIBRATION, Figure, explain_no_probabilities, list_figures
from sentifactory.evaluation.report.first_screen import build_overview, build_tiles, read_doubt
from sentifactory.evaluation.report.mistake_files import find_mistakes, is_right, list_results
from sentifactory.evaluation.report.shown_paths import hide_folders
from sentifactory.metrics.number_formats import format_p_value, format_percent, format_points
from sentifactory.pages.base_page import build_environment
from sentifactory.pages.charts import (
    build_bars,
    build_forest,
    build_reliability,
    build_risk_coverage,
    build_training_curve,
)

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATE = "report.html.j2"
EXAMPLES_SHOWN = 12
FLIPS_SHOWN = 6
TITLES = {name: (names.table.en, names.table.zh) for name, names in MODEL_NAMES.items()}
TITLES["written"] = ("Tuned model, writing", "微调模型（写出回答）")
SHORT_TITLES = {"base": ("Base", "原始"), "tuned": ("Tuned", "微调"), "tfidf": ("TF-IDF", "TF-IDF")}
# The models in pictures and examples, in this order; the majority label has none.
DRAWN = ("base", "tuned", "tfidf")


@dataclass(frozen=True, slots=True)
class FigureTable:
    """Figures, and the models that have them; `has_difference` adds the column tuned minus base."""

    figures: list[Figure]
    models: list[str]
    has_difference: bool


def render_page(report: Mapping[str, Any]) -> str:
    """Return the page of a report as HTML."""
    environment = make_environment()
    report = hide_folders(report)
    labels, models = report["task"]["labels"], report["models"]
    mistakes, doubt = find_mistakes(report, "tuned"), read_doubt(report)
    overview = build_overview(report)
    return environment.get_template(TEMPLATE).render(
        report=report,
        titles=TITLES,
        short=SHORT_TITLES,
        labels=[name_label(label) for label in labels],
        tiles=build_tiles(report),
        overview=overview,
        overview_tones=["tuned", *[""] * (len(overview.rows) - 1)],
        bars=build_bars({name: model["metrics"] for name, model in models.items()}, TITLES, {n: n for n in models}),
        figure_tables=build_figure_tables(report),
        matrices=[build_matrix(report, name) for name in DRAWN if name in models],
        forest=build_forest(report, [name for name in DRAWN if name in models]),
        doubt=doubt,
        mistakes=mistakes,
        has_tfidf="tfidf" in models,
        mistakes_known=[row for row in mistakes if is_right(row, "tfidf")],
        mistakes_shared=[row for row in mistakes if not is_right(row, "tfidf")],
        fixed=find_flips(report, fixed=True),
        broken=find_flips(report, fixed=False),
        sides=[("base", *SHORT_TITLES["base"]), ("tuned", *SHORT_TITLES["tuned"])],
        unparsed=group_unparsed(report),
        tests=list_results(report),
        adapted=build_adapted(report),
        run_card=flatten_card(models["tuned"].get("run_card", {})),
        training=build_training_curve(models["tuned"].get("run_card", {})),
        examples_shown=EXAMPLES_SHOWN,
        flips_shown=FLIPS_SHOWN,
        **build_probability_pictures(report),
    )


def make_environment() -> Environment:
    """Return the templates of report and ladder with the filters that they use."""
    return build_environment(
        "sentifactory.evaluation.report", percent=format_percent, points=format_points, p_value=format_p_value
    )


def build_probability_pictures(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return reliability diagrams and risk-coverage curves, or what the page says in their place."""
    n_labels = len(report["task"]["labels"])
    no_probabilities = explain_no_probabilities(report)
    # TF-IDF always has probabilities: without those of another model they are of no use here.
    known = {
        name: report["models"][name]
        for name in DRAWN
        if no_probabilities is None and report["models"].get(name, {}).get("probability")
    }
    diagrams = [
        {
            "name": name,
            "stage": stage,
            "figures": model[stage],
            "chart": build_reliability(model[stage], n_labels),
        }
        for name, model in known.items()
        for stage in ("probability", "calibrated")
        if model[stage]
    ]
    curves = {name: (model["calibrated"] or model["probability"])["curve"] for name, model in known.items()}
    return {
        "known": known,
        "diagrams": diagrams,
        "risk_coverage": build_risk_coverage(curves) if curves else None,
        "no_probabilities": no_probabilities,
        "no_calibration": NO_CALIBRATION
        if known and not any(model["calibrated"] for model in known.values())
        else None,
    }


def build_adapted(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what adapting to the labels' shares does on each test file; None where it was not asked for."""
    if "adapted" not in report:
        return None
    return adaptation_words.build_adapted(list_results(report), report["task"]["labels"])


def build_figure_tables(report: Mapping[str, Any]) -> list[FigureTable]:
    """Return the figures in tables: those of labels, then those of probabilities with the models that have any.

    Figures that neither base nor tuned has are left out, and so is a coverage of 100 % for all models. A difference
    from a base model that is no baseline is not shown.
    """
    found = []
    has_difference = read_doubt(report) is None
    for needs_probabilities in (False, True):
        figures = [
            figure
            for figure in list_figures(report, report["task"]["labels"])
            if figure.needs_probabilities is needs_probabilities
            and any(figure.values[side] for side in ("base", "tuned"))
            and not (figure.key == "coverage" and all(value and value.value == 1 for value in figure.values.values()))
        ]
        names = [name for name in report["models"] if any(figure.values[name] for figure in figures)]
        if figures:
            found.append(FigureTable(figures, names, has_difference and any(one.difference for one in figures)))
    return found


def build_matrix(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a confusion matrix in which each cell has the strength of its shade (its share of the row, 0 to 1).

    The column of unparsed answers is there only where there are any.
    """
    rows = []
    has_unparsed = report["models"][name]["metrics"]["unparsed"] > 0
    for true_label, all_counts in enumerate(report["models"][name]["metrics"]["confusion"]):
        counts = all_counts if has_unparsed else all_counts[:-1]
        total = sum(counts)
        rows.append(
            [
                {
                    "count": count,
                    "strength": round(count / total, 3) if total else 0.0,
                    "is_right": answer == true_label,
                }
                for answer, count in enumerate(counts)
            ]
        )
    return {"name": name, "rows": rows, "has_unparsed": has_unparsed}


def find_flips(report: Mapping[str, Any], *, fixed: bool) -> list[dict[str, Any]]:
    """Return the rows that tuning changed from wrong to right (`fixed`), or from right to wrong."""
    right, wrong = ("tuned", "base") if fixed else ("base", "tuned")
    return [
        row
        for row in report["predictions"]
        if row[right]["label"] == row["label"] and row[wrong]["label"] != row["label"]
    ]


def group_unparsed(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the replies that state no label by model, those of the tuned model first.

    Returns:
        For each model that has any: `name`, `count`, and `replies` as (reply, how often), the most frequent first.
    """
    rows = report["predictions"]
    answers = {"tuned": [row["tuned"] for row in rows], "written": report.get("written", {}).get("replies", ())}
    answers |= {name: [row[name] for row in rows if name in row] for name in ("base", "few_shot")}
    found = []
    for name, given in answers.items():
        replies = Counter(one["raw"] for one in given if one["label"] is None)
        if replies:
            found.append({"name": name, "count": replies.total(), "replies": replies.most_common()})
    return found


def flatten_card(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the values of a run card as (name, value), nested names joined by dots; long lists are left out."""
    lines: list[tuple[str, str]] = []
    for key, value in card.items():
        if isinstance(value, Mapping):
            lines += [(f"{key}.{inner}", text) for inner, text in flatten_card(value)]
        elif not isinstance(value, list):
            lines.append((key, f"{value:.6g}" if isinstance(value, float) else str(value)))
        elif len(value) <= EXAMPLES_SHOWN and not any(isinstance(item, dict | list) for item in value):
            lines.append((key, json.dumps(value, ensure_ascii=False)))
    return lines
