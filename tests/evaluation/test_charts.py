"""The geometry of the report's pictures, worked out by hand: a plot's inside is 316 wide from 52, 224 high from 12."""

from __future__ import annotations

from typing import Any

import pytest

from sentifactory.evaluation.charts import (
    build_bars,
    build_forest,
    build_reliability,
    build_risk_coverage,
    build_training_curve,
)

PLOT = {"width": 380, "height": 280, "left": 52, "right": 368, "top": 12, "base": 236}
X_TICKS = [52.0, 115.2, 178.4, 241.6, 304.8, 368.0]
Y_TICKS = [236.0, 191.2, 146.4, 101.6, 56.8, 12.0]


def test_bars_stand_below_each_other_with_their_whiskers() -> None:
    metrics = {
        "base": {"accuracy": 0.5, "accuracy_interval": {"low": 0.4, "high": 0.6}},
        "tuned": {"accuracy": 1.0, "accuracy_interval": {"low": 0.9, "high": 1.0}},
    }
    assert build_bars(metrics) == {
        "bars": [
            {
                "name": "base", "share": 0.5, "low": 0.4, "high": 0.6,
                "y": 14, "width": 225.0, "low_x": 410.0, "high_x": 500.0,
            },
            {
                "name": "tuned", "share": 1.0, "low": 0.9, "high": 1.0,
                "y": 64, "width": 450.0, "low_x": 635.0, "high_x": 680.0,
            },
        ],
        "ticks": [(230.0, 0), (320.0, 20), (410.0, 40), (500.0, 60), (590.0, 80), (680.0, 100)],
        "width": 760, "height": 134, "left": 230, "bar_height": 26, "baseline": 108,
    }  # fmt: skip


def test_reliability_of_two_labels_begins_at_a_half() -> None:
    bins = [
        {"confidence": 0.6, "accuracy": 0.5, "reviews": 25, "interval": {"low": 0.25, "high": 0.75}},
        {"confidence": 1.0, "accuracy": 1.0, "reviews": 100, "interval": {"low": 0.95, "high": 1.0}},
    ]
    assert build_reliability({"bins_equal_mass": bins}, 2) == {
        **PLOT,
        "x_ticks": list(zip(X_TICKS, ["50", "60", "70", "80", "90", "100"], strict=True)),
        "y_ticks": list(zip(Y_TICKS, ["0", "20", "40", "60", "80", "100"], strict=True)),
        "diagonal": "52.0,124.0 368.0,12.0",
        "points": [
            {"x": 115.2, "y": 124.0, "low": 180.0, "high": 68.0, "r": 4.5},  # half the root of the reviews
            {"x": 368.0, "y": 12.0, "low": 23.2, "high": 12.0, "r": 6.5},
        ],
    }


def test_reliability_of_three_labels_begins_below_a_third() -> None:
    bins = [{"confidence": 0.3, "accuracy": 0.3, "reviews": 1, "interval": {"low": 0.0, "high": 1.0}}]
    chart = build_reliability({"bins_equal_mass": bins}, 3)
    assert chart["x_ticks"][0] == (52.0, "30")
    assert chart["points"][0]["x"] == 52.0
    assert chart["diagonal"] == "52.0,168.8 368.0,12.0"


@pytest.mark.parametrize(
    ("risk", "top", "words"),
    [
        (0.12, 0.15, ["0", "3", "6", "9", "12", "15"]),
        (0.15, 0.15, ["0", "3", "6", "9", "12", "15"]),
        (0.01, 0.05, ["0", "1", "2", "3", "4", "5"]),
    ],
)
def test_risk_and_coverage_show_what_a_tenth_and_more_give(risk: float, top: float, words: list[str]) -> None:
    curve = [(0.05, 1.0), (0.1, risk), (1.0, 0.0)]
    chart = build_risk_coverage({"tuned": curve})
    assert chart["x_ticks"] == list(zip(X_TICKS, ["0", "20", "40", "60", "80", "100"], strict=True))
    assert chart["y_ticks"] == list(zip(Y_TICKS, words, strict=True))
    height = round(236 - risk / top * 224, 1)
    assert chart["lines"] == [{"name": "tuned", "points": f"67.8,12.0 83.6,{height} 368.0,236.0"}]
    assert {key: chart[key] for key in PLOT} == PLOT


def test_a_training_curve_by_step() -> None:
    metrics: list[Any] = [
        {"step": 50, "loss": 2.0},
        {"step": 100, "loss": 1.0, "eval_loss": 1.5},
        {"step": 200, "eval_loss": 1.05, "loss": None},
        {"loss": 9.0},
        "no row",
    ]
    assert build_training_curve({"metrics": metrics}) == {
        **PLOT,
        "x_ticks": list(zip([52.0, 131.0, 210.0, 289.0, 368.0], ["0", "50", "100", "150", "200"], strict=True)),
        "y_ticks": list(zip([236.0, 180.0, 124.0, 68.0, 12.0], ["0", "0.53", "1.1", "1.6", "2.1"], strict=True)),
        "lines": [
            {"name": "train", "points": "131.0,22.7 210.0,129.3"},
            {"name": "eval", "points": "210.0,76.0 368.0,124.0"},
        ],
    }


def test_no_curve_where_there_are_no_two_points() -> None:
    assert build_training_curve({}) is None
    assert build_training_curve({"metrics": [{"step": 1, "loss": 2.0}, {"step": 2, "eval_loss": 2.0}]}) is None
    flat = build_training_curve({"metrics": [{"step": 1, "loss": 0.0}, {"step": 2, "loss": 0.0}]})
    assert flat is not None
    assert flat["lines"][0]["points"] == "210.0,236.0 368.0,236.0"


def test_a_forest_has_a_row_for_each_group_and_a_point_for_each_model() -> None:
    def score(accuracy: float, low: float, high: float, name: str) -> dict[str, Any]:
        interval = {"low": low, "high": high}
        return {"kind": "length", "name": name, "reviews": 9, "accuracy": accuracy, "interval": interval}

    result = {
        "models": {
            "base": {"groups": [score(0.5, 0.4, 0.6, "short"), score(0.0, 0.0, 0.1, "long")]},
            "tuned": {"groups": [score(1.0, 0.8, 1.0, "short"), score(0.2, 0.1, 0.3, "long")]},
        }
    }
    assert build_forest(result, ["base", "tuned"]) == {
        "rows": [
            {
                "kind": "length", "name": "short", "reviews": 9, "y": 23.0,
                "points": [
                    {"name": "base", "x": 465.0, "low": 412.0, "high": 518.0, "y": 18.5},
                    {"name": "tuned", "x": 730.0, "low": 624.0, "high": 730.0, "y": 27.5},
                ],
            },
            {
                "kind": "length", "name": "long", "reviews": 9, "y": 57.0,
                "points": [
                    {"name": "base", "x": 200.0, "low": 200.0, "high": 253.0, "y": 52.5},
                    {"name": "tuned", "x": 306.0, "low": 253.0, "high": 359.0, "y": 61.5},
                ],
            },
        ],
        "ticks": [(200.0, 0), (306.0, 20), (412.0, 40), (518.0, 60), (624.0, 80), (730.0, 100)],
        "width": 760, "height": 108, "left": 200, "baseline": 82,
    }  # fmt: skip
