"""Geometry of the pictures of a report, in units of their viewBox; the template draws them as SVG.

Not covered here: the confusion matrices, which are tables that `page` builds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

PLOT_WIDTH = 380
PLOT_HEIGHT = 280
PLOT_LEFT = 52
PLOT_RIGHT = 12
PLOT_TOP = 12
PLOT_BOTTOM = 44

CHART_WIDTH = 760
CHART_LEFT = 230
CHART_RIGHT = 80
BAR_HEIGHT = 26
ROW_HEIGHT = 50

FOREST_WIDTH = 760
FOREST_LEFT = 200
FOREST_RIGHT = 30
FOREST_ROW = 34
_DOT = (2.5, 6.5)  # smallest and largest radius of a point of the reliability diagram


class Frame:
    """Places values in a plot; `x` and `y` give units of the viewBox."""

    def __init__(self, x_range: tuple[float, float], y_range: tuple[float, float]) -> None:
        self._x, self._y = x_range, y_range

    def x(self, value: float) -> float:
        """Return where a value stands from left to right."""
        return round(PLOT_LEFT + _share(value, self._x) * (PLOT_WIDTH - PLOT_LEFT - PLOT_RIGHT), 1)

    def y(self, value: float) -> float:
        """Return where a value stands from top to bottom."""
        return round(PLOT_HEIGHT - PLOT_BOTTOM - _share(value, self._y) * (PLOT_HEIGHT - PLOT_TOP - PLOT_BOTTOM), 1)

    def trace(self, points: Sequence[Sequence[float]]) -> str:
        """Return the `points` of a polyline."""
        return " ".join(f"{self.x(x)},{self.y(y)}" for x, y in points)

    def describe(self, x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]]) -> dict[str, Any]:
        """Return size, axes and ticks."""
        return {
            "width": PLOT_WIDTH,
            "height": PLOT_HEIGHT,
            "left": PLOT_LEFT,
            "right": PLOT_WIDTH - PLOT_RIGHT,
            "top": PLOT_TOP,
            "base": PLOT_HEIGHT - PLOT_BOTTOM,
            "x_ticks": [(self.x(value), text) for value, text in x_ticks],
            "y_ticks": [(self.y(value), text) for value, text in y_ticks],
        }


def build_bars(metrics_of: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the geometry of the accuracy bars with the whiskers of their intervals, from the metrics by name."""
    span = CHART_WIDTH - CHART_LEFT - CHART_RIGHT

    def place(share: float) -> float:
        return round(CHART_LEFT + share * span, 1)

    bars = []
    for row, (name, figures) in enumerate(metrics_of.items()):
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


def build_reliability(figures: Mapping[str, Any], n_labels: int) -> dict[str, Any]:
    """Return the reliability diagram of a model: accuracy against confidence over bins of equal mass.

    The axis of confidence begins at 1 / n_labels: no answered label can be less probable than that.
    """
    lowest = math.floor(10 / n_labels) / 10
    frame = Frame((lowest, 1.0), (0.0, 1.0))
    bins = figures["bins_equal_mass"]
    most = max(one["reviews"] for one in bins)
    points = [
        {
            "x": frame.x(one["confidence"]),
            "y": frame.y(one["accuracy"]),
            "low": frame.y(one["interval"]["low"]),
            "high": frame.y(one["interval"]["high"]),
            "r": round(_DOT[0] + (_DOT[1] - _DOT[0]) * math.sqrt(one["reviews"] / most), 1),
        }
        for one in bins
    ]
    ticks = [lowest + (1 - lowest) * step / 5 for step in range(6)]
    return {
        **frame.describe([(tick, f"{tick * 100:.0f}") for tick in ticks], _percent_ticks(1.0)),
        "diagonal": frame.trace([(lowest, lowest), (1, 1)]),
        "points": points,
    }


def build_risk_coverage(curves: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Any]:
    """Return the risk-coverage curves: error rate among the answered against the share that is answered."""
    # The first few answers make the error rate jump: the axis shows what a tenth of the reviews and more give.
    points = [point for curve in curves.values() for point in curve]
    highest = max((risk for coverage, risk in points if coverage >= 0.1), default=max(risk for _, risk in points))
    top = max(0.05, math.ceil(highest * 20) / 20)
    frame = Frame((0.0, 1.0), (0.0, top))
    lines = [
        {"name": name, "points": frame.trace([(x, min(y, top)) for x, y in curve])} for name, curve in curves.items()
    ]
    return {
        **frame.describe([(tick / 5, f"{tick * 20}") for tick in range(6)], _percent_ticks(top)),
        "lines": lines,
    }


def build_training_curve(card: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the loss by step as the run card has it, training and evaluation; None where it has no two points."""
    metrics = card.get("metrics")
    rows = [row for row in metrics if isinstance(row, dict) and "step" in row] if isinstance(metrics, list) else []
    curves = {
        name: [(float(row["step"]), float(row[key])) for row in rows if isinstance(row.get(key), int | float)]
        for name, key in (("train", "loss"), ("eval", "eval_loss"))
    }
    curves = {name: points for name, points in curves.items() if len(points) > 1}
    if not curves:
        return None
    last = max(x for points in curves.values() for x, _ in points)
    top = max(y for points in curves.values() for _, y in points) * 1.05
    frame = Frame((0.0, last), (0.0, top or 1.0))
    return {
        **frame.describe(
            [(last * step / 4, f"{last * step / 4:.0f}") for step in range(5)],
            [(top * step / 4, f"{top * step / 4:.2g}") for step in range(5)],
        ),
        "lines": [{"name": name, "points": frame.trace(points)} for name, points in curves.items()],
    }


def build_forest(result: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the accuracies by domain and length: a point and an interval for each model in each group."""

    def place(share: float) -> float:
        return round(FOREST_LEFT + share * (FOREST_WIDTH - FOREST_LEFT - FOREST_RIGHT), 1)

    groups = result["models"][names[0]]["groups"]
    rows = []
    for number, group in enumerate(groups):
        middle = number * FOREST_ROW + FOREST_ROW / 2 + 6
        points = []
        for order, name in enumerate(names):
            scores = result["models"][name]["groups"][number]
            points.append(
                {
                    "name": name,
                    "x": place(scores["accuracy"]),
                    "low": place(scores["interval"]["low"]),
                    "high": place(scores["interval"]["high"]),
                    "y": middle + (order - (len(names) - 1) / 2) * 9,
                }
            )
        rows.append({"kind": group["kind"], "name": group["name"], "reviews": group["reviews"], "y": middle,
                     "points": points})  # fmt: skip
    height = len(rows) * FOREST_ROW + 40
    return {
        "rows": rows,
        "ticks": [(place(percent / 100), percent) for percent in range(0, 101, 20)],
        "width": FOREST_WIDTH,
        "height": height,
        "left": FOREST_LEFT,
        "baseline": height - 26,
    }


def _share(value: float, bounds: tuple[float, float]) -> float:
    low, high = bounds
    return (value - low) / (high - low)


def _percent_ticks(top: float) -> list[tuple[float, str]]:
    return [(top * step / 5, f"{top * 20 * step:.3g}") for step in range(6)]
