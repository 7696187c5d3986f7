"""The page of a report: one HTML file that asks nothing of the network, in English and Chinese, fit for printing.

Drawn from the dictionary of `report.json` alone, so that an old report can be drawn again. Review texts and replies
are strangers' words: the template escapes everything, and the page forbids itself scripts by its own policy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sentifactory.corpus.wording import name_label
from sentifactory.evaluation.charts import (
    build_bars,
    build_forest,
    build_reliability,
    build_risk_coverage,
    build_training_curve,
)
from sentifactory.evaluation.formats import format_p_value, format_percent, format_points
from sentifactory.evaluation.mistake_files import each_test, find_surest
from sentifactory.evaluation.wording import CONTENDERS, NO_CALIBRATION, explain_no_probabilities, list_figures
from sentifactory.pages.rendering import build_environment

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATE = "report.html.j2"
EXAMPLES_SHOWN = 12
TITLES = {name: (title.en, title.zh) for name, title in CONTENDERS.items()}
# Whose pictures are drawn, in this order; the majority label has none.
DRAWN = ("base", "tuned", "tfidf")


def render_page(report: Mapping[str, Any]) -> str:
    """Return the page of a report as HTML."""
    environment = make_environment()
    labels = report["task"]["labels"]
    return environment.get_template(TEMPLATE).render(
        report=report,
        titles=TITLES,
        labels=[name_label(label) for label in labels],
        chart=build_bars({name: model["metrics"] for name, model in report["models"].items()}),
        figures=list_figures(report, labels),
        matrices=[build_matrix(report, name) for name in DRAWN if name in report["models"]],
        forest=build_forest(report, [name for name in DRAWN if name in report["models"]]),
        fixed=find_flips(report, fixed=True),
        broken=find_flips(report, fixed=False),
        surest={name: rows for name in DRAWN if name in report["models"] and (rows := find_surest(report, name))},
        unparsed=find_unparsed(report),
        tests=each_test(report),
        run_card=flatten_card(report["models"]["tuned"].get("run_card", {})),
        training=build_training_curve(report["models"]["tuned"].get("run_card", {})),
        examples_shown=EXAMPLES_SHOWN,
        **build_probability_pictures(report),
    )


def make_environment() -> Environment:
    """Return the templates of this room with the filters that they use."""
    return build_environment(
        "sentifactory.evaluation", percent=format_percent, points=format_points, p_value=format_p_value
    )


def build_probability_pictures(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return reliability diagrams and risk-coverage curves, and what the page says where there are none."""
    n_labels = len(report["task"]["labels"])
    known = {name: report["models"][name] for name in DRAWN if report["models"].get(name, {}).get("probability")}
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
        "no_probabilities": explain_no_probabilities(report),
        "no_calibration": NO_CALIBRATION
        if known and not any(model["calibrated"] for model in known.values())
        else None,
    }


def build_matrix(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a confusion matrix with the strength of each cell's shade (its share of the row, 0 to 1)."""
    rows = []
    for true_label, counts in enumerate(report["models"][name]["metrics"]["confusion"]):
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
    return {"name": name, "rows": rows}


def find_flips(report: Mapping[str, Any], *, fixed: bool) -> list[dict[str, Any]]:
    """Return the rows that tuning put right (`fixed`), or those that it put wrong."""
    right, wrong = ("tuned", "base") if fixed else ("base", "tuned")
    return [
        row
        for row in report["predictions"]
        if row[right]["label"] == row["label"] and row[wrong]["label"] != row["label"]
    ]


def find_unparsed(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return who replied what, for every reply that states no label; the tuned model's first."""
    return [
        {"name": name, "text": row["text"], "raw": row[name]["raw"]}
        for name in ("tuned", "base")
        for row in report["predictions"]
        if row[name]["label"] is None
    ]


def flatten_card(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the run card's plain values as (name, value), nested names joined by dots; long lists are left out."""
    lines: list[tuple[str, str]] = []
    for key, value in card.items():
        if isinstance(value, Mapping):
            lines += [(f"{key}.{inner}", text) for inner, text in flatten_card(value)]
        elif not isinstance(value, list):
            lines.append((key, f"{value:.6g}" if isinstance(value, float) else str(value)))
        elif len(value) <= EXAMPLES_SHOWN and not any(isinstance(item, dict | list) for item in value):
            lines.append((key, json.dumps(value, ensure_ascii=False)))
    return lines
