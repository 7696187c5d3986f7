"""The geometry of the report's pictures, worked out by hand: a plot's inside is 316 wide from 52, 224 high from 12."""

from __future__ import annotations

from typing import Any

import pytest

from sentifactory.pages.charts import (
    build_bars,
    build_cost_plane,
    build_forest,
    build_reliability,
    build_risk_coverage,
    build_training_curve,
)
from sentifactory.pages.label_placement import LabelPlace

PLOT = {"width": 380, "height": 280, "left": 52, "right": 368, "top": 12, "base": 236}
X_TICKS = [52.0, 115.2, 178.4, 241.6, 304.8, 368.0]
Y_TICKS = [236.0, 191.2, 146.4, 101.6, 56.8, 12.0]


def test_bars_with_their_whiskers() -> None:
    metrics = {
        "base": {"accuracy": 0.5, "accuracy_interval": {"low": 0.4, "high": 0.6}},
        "tuned": {"accuracy": 1.0, "accuracy_interval": {"low": 0.9, "high": 1.0}},
    }
    titles = {"base": ("Base", "原始"), "tuned": ("Tuned", "微调")}
    assert build_bars(metrics, titles, {"base": "grey", "tuned": "teal"}) == [
        {"title": ("Base", "原始"), "tone": "grey", "share": 0.5, "low": 0.4, "high": 0.6},
        {"title": ("Tuned", "微调"), "tone": "teal", "share": 1.0, "low": 0.9, "high": 1.0},
    ]


def test_costs_on_a_logarithmic_axis() -> None:
    def figures(accuracy: float) -> dict[str, Any]:
        interval = {"low": accuracy - 0.02, "high": accuracy + 0.02}
        return {"accuracy": accuracy, "accuracy_interval": interval}

    points = [("fast", "tfidf", 1000.0, figures(0.82)), ("slow", "tuned", 10.0, figures(0.92)),
              ("twin", "tuned", 11.0, figures(0.92))]  # fmt: skip
    titles = {key: (key, key) for key in ("fast", "slow", "twin")}
    plane = build_cost_plane(points, titles, line=0.78)
    # From 75 to 95 per cent, from 10 to 1000 reviews per second.
    assert plane["x_ticks"] == [(0.0, "10"), (50.0, "100"), (100.0, "1,000")]
    assert plane["y_ticks"] == [(0.0, "75"), (25.0, "80"), (50.0, "85"), (75.0, "90"), (100.0, "95")]
    assert plane["line"] == pytest.approx(15)
    slow, twin, fast = plane["points"]
    assert (fast["key"], fast["x"], fast["y"], fast["low"], fast["high"]) == ("fast", 100.0, 35.0, 25.0, 45.0)
    assert fast["name"] == fast["number"] == LabelPlace(is_left=True, y=35.0), "there is room on its left only"
    assert (slow["x"], slow["y"], slow["name"].is_left) == (0.0, 85.0, False)
    assert slow["name"].y != 85.0, "its name does not cover its twin"
    assert (twin["y"], twin["name"]) == (85.0, LabelPlace(is_left=False, y=85.0))


def test_costs_of_equal_speed_and_slow_models_have_an_axis() -> None:
    figures = {"accuracy": 0.5, "accuracy_interval": {"low": 0.1, "high": 1.0}}
    points = [("a", "base", 0.1, figures), ("b", "base", 0.1, figures)]
    plane = build_cost_plane(points, {"a": ("a", "甲"), "b": ("b", "乙")})
    assert plane["x_ticks"] == [(0.0, "0.1"), (100.0, "1")]
    assert [text for _, text in plane["y_ticks"]] == [f"{percent}" for percent in range(10, 101, 10)]
    assert plane["line"] is None


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
def test_risk_and_coverage_fit_coverages_from_a_tenth_on(risk: float, top: float, words: list[str]) -> None:
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


def test_no_curve_without_two_points() -> None:
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
    assert build_forest(result, ["base", "tuned"]) == [
        {
            "kind": "length", "name": "short", "reviews": 9,
            "points": [
                {"name": "base", "share": 0.5, "low": 0.4, "high": 0.6},
                {"name": "tuned", "share": 1.0, "low": 0.8, "high": 1.0},
            ],
        },
        {
            "kind": "length", "name": "long", "reviews": 9,
            "points": [
                {"name": "base", "share": 0.0, "low": 0.0, "high": 0.1},
                {"name": "tuned", "share": 0.2, "low": 0.1, "high": 0.3},
            ],
        },
    ]  # fmt: skip
