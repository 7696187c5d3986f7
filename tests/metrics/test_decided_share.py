"""The share decided without a person: counts, exact intervals, and thresholds that never see what they decide."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from sentifactory.metrics.decided_share import (
    CROSS_FIT,
    VALIDATION,
    decide_by_cross_fit,
    decide_by_threshold,
)
from sentifactory.metrics.ranking import choose_threshold
from sentifactory.metrics.significance import compute_exact_interval


def draw(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidences from 0.5 to 1, and answers that are right as often as these say."""
    dice = np.random.default_rng(seed)
    confidence = dice.uniform(0.5, 1, n)
    return confidence, dice.random(n) < confidence


def test_counts_by_hand() -> None:
    confidence = np.array([0.99, 0.9, 0.9, 0.8, 0.6])
    is_right = np.array([True, True, False, True, False])
    found = decide_by_threshold(confidence, is_right, 6, 0.9, 0.95)
    assert (found.decided, found.share, found.error) == (3, 0.5, pytest.approx(1 / 3))
    assert (found.target_error, found.source) == (0.05, VALIDATION)
    assert found.error_interval is not None
    assert found.error_interval.low == pytest.approx(beta.ppf(0.025, 1, 3))
    assert found.error_interval.high == pytest.approx(beta.ppf(0.975, 2, 2))
    assert found.share_interval.low < 0.5 < found.share_interval.high


@pytest.mark.parametrize("threshold", [None, 0.995])
def test_nothing_decided_has_a_share_and_no_error(threshold: float | None) -> None:
    found = decide_by_threshold(np.array([0.9, 0.99]), np.array([True, True]), 2, threshold, 0.95)
    assert (found.decided, found.share, found.error, found.error_interval) == (0, 0.0, None, None)


@pytest.mark.slow
def test_the_exact_interval_covers_as_often_as_it_says() -> None:
    dice = np.random.default_rng(1)
    covered = 0
    for count in dice.binomial(200, 0.05, size=400):
        interval = compute_exact_interval(int(count), 200)
        covered += interval.low <= 0.05 <= interval.high
    assert covered >= 0.95 * 400 - 10


def test_a_cross_fit_is_near_the_error_wanted_where_one_on_the_same_reviews_is_below() -> None:
    crossed, same = [], []
    for seed in range(30):
        confidence, is_right = draw(400, seed)
        found = decide_by_cross_fit(confidence, is_right, 400, 0.9, min_reviews=30, seed=seed)
        assert found is not None
        assert found.source == CROSS_FIT
        assert found.error is not None
        crossed.append(found.error)
        threshold = choose_threshold(confidence, is_right, 0.9, 30)
        same.append(decide_by_threshold(confidence, is_right, 400, threshold, 0.9).error)
    assert max(same) <= 0.1
    assert np.mean(crossed) > np.mean(same)
    assert np.mean(crossed) == pytest.approx(0.1, abs=0.025)


def test_the_share_of_a_calibrated_model_is_the_one_that_follows_from_its_confidences() -> None:
    confidence, is_right = draw(20_000, 3)
    found = decide_by_cross_fit(confidence, is_right, 20_000, 0.9, min_reviews=30)
    assert found is not None
    assert found.share == pytest.approx(0.4, abs=0.05)  # uniform above 0.8 has a mean of 0.9


def test_too_few_reviews_and_missing_answers() -> None:
    confidence, is_right = draw(59, 4)
    assert decide_by_cross_fit(confidence, is_right, 59, 0.9, min_reviews=30) is None
    confidence, is_right = np.ones(100), np.ones(100, dtype=bool)
    found = decide_by_cross_fit(confidence, is_right, 200, 0.9, min_reviews=30)
    assert found is not None
    assert (found.decided, found.share) == (100, 0.5)
