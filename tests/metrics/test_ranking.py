"""Ranking figures, weighted and not, against scikit-learn and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from sentifactory.metrics import ranking


@pytest.fixture(params=["continuous", "with ties"])
def scores(request: pytest.FixtureRequest) -> np.ndarray:
    values = np.random.default_rng(4).random(300)
    return values if request.param == "continuous" else np.round(values, 1)


@pytest.fixture
def is_positive(scores: np.ndarray) -> np.ndarray:
    return np.random.default_rng(5).random(300) < 0.2 + 0.6 * scores


def test_roc_auc_and_average_precision_against_scikit_learn(scores: np.ndarray, is_positive: np.ndarray) -> None:
    weights = np.vstack([np.ones(300), np.random.default_rng(6).integers(0, 4, size=(3, 300))]).astype(float)
    aucs = ranking.weigh_roc_auc(is_positive, scores, weights)
    precisions = ranking.weigh_average_precision(is_positive, scores, weights)
    for row, weight in enumerate(weights):
        assert aucs[row] == pytest.approx(roc_auc_score(is_positive, scores, sample_weight=weight))
        assert precisions[row] == pytest.approx(average_precision_score(is_positive, scores, sample_weight=weight))


def test_one_class_alone_has_no_ranking() -> None:
    assert np.isnan(ranking.weigh_roc_auc(np.ones(4, dtype=bool), np.arange(4.0), np.ones((1, 4)))[0])


def test_aurc_against_a_plain_loop() -> None:
    dice = np.random.default_rng(7)
    confidence = dice.random(200)
    is_right = dice.random(200) < confidence
    wrong = [not right for _, right in sorted(zip(confidence, is_right, strict=True), reverse=True)]
    risks = [sum(wrong[: k + 1]) / (k + 1) for k in range(200)]
    assert ranking.weigh_aurc(confidence, is_right, np.ones((1, 200)))[0] == pytest.approx(sum(risks) / 200)
    coverage, risk, thresholds = ranking.trace_risk_coverage(confidence, is_right)
    assert risk == pytest.approx(risks)
    assert coverage == pytest.approx([(k + 1) / 200 for k in range(200)])
    assert list(thresholds) == sorted(confidence, reverse=True)


def test_weights_are_copies() -> None:
    dice = np.random.default_rng(8)
    confidence, is_right = dice.random(50).round(1), dice.random(50) < 0.7
    copies = dice.integers(0, 4, 50)
    weighted = ranking.weigh_aurc(confidence, is_right, copies[None].astype(float))[0]
    spread = ranking.weigh_aurc(np.repeat(confidence, copies), np.repeat(is_right, copies), np.ones((1, copies.sum())))
    assert weighted == pytest.approx(spread[0])


def test_the_threshold_is_the_lowest_that_reaches_the_accuracy() -> None:
    confidence = np.array([0.9] * 40 + [0.8] * 40 + [0.7] * 40)
    is_right = np.array([True] * 40 + [True] * 36 + [False] * 4 + [True] * 20 + [False] * 20)
    assert ranking.choose_threshold(confidence, is_right, 0.95, 30) == 0.8  # 76 of 80
    assert ranking.choose_threshold(confidence, is_right, 0.96, 30) == 0.9
    assert ranking.choose_threshold(confidence, is_right, 0.5, 30) == 0.7
    assert ranking.choose_threshold(confidence, ~is_right, 0.95, 30) is None
    assert ranking.choose_threshold(confidence, is_right, 0.96, 41) is None


def test_a_threshold_reaches_an_accuracy_in_whole_reviews() -> None:
    """1 - 0.07 is below 0.93 in floating point."""
    is_right = np.array([True] * 93 + [False] * 7)
    assert ranking.choose_threshold(np.full(100, 0.9), is_right, 0.93, 30) == 0.9
    assert ranking.choose_threshold(np.full(100, 0.9), is_right, 0.931, 30) is None
