"""The page of a report: one HTML file that asks nothing of the network, in English and Chinese, fit for printing.

Drawn from the dictionary of `report.json` alone, so that an old report can be drawn again. Review texts and replies
are strangers' words: the template escapes everything, and the page forbids itself scripts by its own policy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sentifactory.evaluation.verdict import format_p_value, format_percent, format_points
from sentifactory.pages.rendering import build_environment

TEMPLATE = "report.html.j2"
EXAMPLES_SHOWN = 12
TITLES = {
    "majority": ("Majority label", "多数类"),
    "base": ("Base model", "原始模型"),
    "tuned": ("Tuned model", "微调模型"),
    "tfidf": ("TF-IDF + logistic regression", "TF-IDF + 逻辑回归"),
}
LABELS_ZH = {"negative": "负面", "positive": "正面", "neutral": "中性"}

# Geometry of the bar chart, in units of its viewBox.
CHART_WIDTH = 760
CHART_LEFT = 230
CHART_RIGHT = 80
BAR_HEIGHT = 26
ROW_HEIGHT = 50


def render_page(report: Mapping[str, Any]) -> str:
    """Return the page of a report as HTML."""
    environment = build_environment(
        "sentifactory.evaluation", percent=format_percent, points=format_points, p_value=format_p_value
    )
    labels = report["task"]["labels"]
    return environment.get_template(TEMPLATE).render(
        report=report,
        titles=TITLES,
        labels=[(label, LABELS_ZH.get(label, label)) for label in labels],
        chart=build_chart(report),
        matrices=[build_matrix(report, name) for name in ("base", "tuned", "tfidf") if name in report["models"]],
        fixed=find_flips(report, fixed=True),
        broken=find_flips(report, fixed=False),
        unparsed=find_unparsed(report),
        run_card=flatten_card(report["models"]["tuned"].get("run_card", {})),
        examples_shown=EXAMPLES_SHOWN,
    )


def build_chart(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the geometry of the accuracy bars with the whiskers of their intervals."""
    span = CHART_WIDTH - CHART_LEFT - CHART_RIGHT

    def place(share: float) -> float:
        return round(CHART_LEFT + share * span, 1)

    bars = []
    for row, (name, model) in enumerate(report["models"].items()):
        figures = model["metrics"]
        interval = figures["accuracy_interval"]
        bars.append(
            {
                "name": name,
                "share": figures["accuracy"],
                "low": interval["low"],
                "high": interval["high"],
                "y": row * ROW_HEIGHT + 14,
                "width": round(figures["accuracy"] * span, 1),
                "low_x": place(interval["low"]),
                "high_x": place(interval["high"]),
            }
        )
    ticks = [(place(percent / 100), percent) for percent in range(0, 101, 20)]
    height = len(bars) * ROW_HEIGHT + 34
    return {
        "bars": bars,
        "ticks": ticks,
        "width": CHART_WIDTH,
        "height": height,
        "left": CHART_LEFT,
        "bar_height": BAR_HEIGHT,
        "baseline": height - 26,
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
