"""What the charts of report and ladder show; the templates draw them.

Drawn by hand and not by matplotlib, because the charts take their colours from the page's style sheet (light, dark and
print) and hold their words in both languages. Bars, forest and costs are HTML, whose text keeps its size on a narrow
screen; curves are SVG, in viewBox units. Confusion matrices are tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sentifactory.pages.label_placement import LabelledPoint, estimate_width, place_labels

PLOT_WIDTH = 380
PLOT_HEIGHT = 280
PLOT_LEFT = 52
PLOT_RIGHT = 12
PLOT_TOP = 12
PLOT_BOTTOM = 44

_DOT = (2.5, 6.5)  # smallest and largest radius of a point in the reliability diagram
# Width and height in pixels of the narrowest picture of costs with names, and of that with numbers for a key.
_WIDE_PLANE = (820.0, 352.0)
_NARROW_PLANE = (200.0, 272.0)
_FINE_SPAN = 0.3  # of accuracies: below it the levels are 5 points apart


class Frame:
    """Maps values of a plot to viewBox units."""

    def __init__(self, x_range: tuple[float, float], y_range: tuple[float, float]) -> None:
        self._x, self._y = x_range, y_range

    def x(self, value: float) -> float:
        """Return the horizontal position of a value."""
        return round(PLOT_LEFT + _share(value, self._x) * (PLOT_WIDTH - PLOT_LEFT - PLOT_RIGHT), 1)

    def y(self, value: float) -> float:
        """Return the vertical position of a value."""
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


def build_bars(
    metrics_of: Mapping[str, Mapping[str, Any]], titles: Mapping[str, tuple[str, str]], tones: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the accuracy bars with the whiskers of their intervals, as shares from 0 to 1.

    Args:
        metrics_of: the metrics by model.
        titles: English and Chinese name of each model.
        tones: the CSS class of each bar.
    """
    return [
        {
            "title": titles[name],
            "tone": tones[name],
            "share": figures["accuracy"],
            "low": figures["accuracy_interval"]["low"],
            "high": figures["accuracy_interval"]["high"],
        }
        for name, figures in metrics_of.items()
    ]


def build_reliability(figures: Mapping[str, Any], n_labels: int) -> dict[str, Any]:
    """Return the reliability diagram of a model: accuracy against confidence over bins of equal mass.

    The confidence axis starts at 1 / n_labels, the least possible confidence.
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
    """Return the risk-coverage curves: error rate among the answered reviews against the share that is answered."""
    # The error rate of the first few answers is erratic: the axis fits coverages from a tenth on.
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
    """Return training and evaluation loss by step from a run card; None where neither has two points."""
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


def build_forest(result: Mapping[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of the forest plot: by domain and length, a share with its interval for each model."""
    return [
        {
            "kind": group["kind"],
            "name": group["name"],
            "reviews": group["reviews"],
            "points": [
                {
                    "name": name,
                    "share": scores["accuracy"],
                    **{end: scores["interval"][end] for end in ("low", "high")},
                }
                for name in names
                for scores in (result["models"][name]["groups"][number],)
            ],
        }
        for number, group in enumerate(result["models"][names[0]]["groups"])
    ]


def build_cost_plane(
    points: Sequence[tuple[str, str, float, Mapping[str, Any]]],
    titles: Mapping[str, Sequence[str]],
    line: float | None = None,
) -> dict[str, Any]:
    """Return accuracy against reviews per second, with a logarithmic axis of speeds; positions in per cent.

    Args:
        points: (title key, tone, reviews per second, metrics) of each model.
        titles: English and Chinese name of each model.
        line: an accuracy to draw as a line, that of the majority label.
    """
    speeds = [speed for _, _, speed, _ in points]
    first, last = math.floor(math.log10(min(speeds))), math.ceil(math.log10(max(speeds)))
    last = max(last, first + 1)
    lows = [figures["accuracy_interval"]["low"] for *_, figures in points] + ([line] if line is not None else [])
    highs = [figures["accuracy_interval"]["high"] for *_, figures in points]
    step = 0.05 if max(highs) - min(lows) <= _FINE_SPAN else 0.1
    low, high = math.floor(min(lows) / step + 1e-9) * step, min(1.0, math.ceil(max(highs) / step - 1e-9) * step)

    def across(speed: float) -> float:
        return round(100 * (math.log10(speed) - first) / (last - first), 2)

    def up(share: float) -> float:
        return round(100 * (share - low) / (high - low), 2)

    drawn: list[dict[str, Any]] = []
    for key, tone, speed, figures in sorted(points, key=lambda point: -point[3]["accuracy"]):
        interval = figures["accuracy_interval"]
        x = across(speed)
        drawn.append(
            {"key": key, "tone": tone, "x": x, "y": up(figures["accuracy"]), "low": up(interval["low"]),
             "high": up(interval["high"])}
        )  # fmt: skip
    _place_labels(drawn, titles, up(line) if line is not None else None)
    n_levels = round((high - low) / step)
    return {
        "points": drawn,
        "x_ticks": [(across(10.0**power), f"{10**power:,}" if power >= 0 else f"{10.0**power:g}")
                    for power in range(first, last + 1)],
        "y_ticks": [(up(low + step * n), f"{100 * (low + step * n):.0f}") for n in range(n_levels + 1)],
        "line": up(line) if line is not None else None,
    }  # fmt: skip


def _place_labels(points: Sequence[dict[str, Any]], titles: Mapping[str, Sequence[str]], line: float | None) -> None:
    """Give each point the places of its name, for wide windows, and of its number, for narrow ones."""
    widths = {key: max(map(estimate_width, names)) for key, names in titles.items()}
    for kind, size, width_of in (
        ("name", _WIDE_PLANE, lambda number, key: widths[key]),
        ("number", _NARROW_PLANE, lambda number, key: estimate_width(str(number))),
    ):
        labelled = [
            LabelledPoint(point["x"], point["y"], point["low"], point["high"], width_of(number, point["key"]))
            for number, point in enumerate(points, start=1)
        ]
        for point, place in zip(points, place_labels(labelled, size, line), strict=True):
            point[kind] = place


def _share(value: float, bounds: tuple[float, float]) -> float:
    low, high = bounds
    return (value - low) / (high - low)


def _percent_ticks(top: float) -> list[tuple[float, str]]:
    return [(top * step / 5, f"{top * 20 * step:.3g}") for step in range(6)]
