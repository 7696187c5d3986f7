"""The figures of the parity gate, and what lies beyond its limits."""

from __future__ import annotations

import math

import pytest

from sentifactory.errors import EngineError
from sentifactory.publishing.export.parity import Parity, ParityLimits, compare_answers
from sentifactory.records import Prediction, Review

LIMITS = ParityLimits(flips=0.25, difference=0.1)


def answer(*shares: float) -> Prediction:
    return Prediction(shares.index(max(shares)), probabilities=shares)


def compare(pairs: list[tuple[float, float]], limits: ParityLimits = LIMITS) -> Parity:
    reviews = [Review("好", 1), Review("坏", 0), Review("书"), Review("店", 1)]
    before = [answer(1 - share, share) for share, _ in pairs]
    after = [answer(1 - share, share) for _, share in pairs]
    return compare_answers(reviews, before, after, limits)


def test_figures() -> None:
    parity = compare([(0.9, 0.8), (0.2, 0.2), (0.6, 0.4), (0.7, 0.72)])
    assert (parity.flips, parity.flip_share) == (1, 0.25)
    assert parity.flip_interval.low < 0.25 < parity.flip_interval.high
    assert parity.difference_mean == pytest.approx((0.1 + 0 + 0.2 + 0.02) / 4)
    assert parity.difference_max == pytest.approx(0.2)
    assert 0.1 < parity.difference_p95 < 0.2
    assert parity.accuracy == parity.accuracy_checkpoint == 1, "of the three whose label is known"
    assert parity.is_within_limits


@pytest.mark.parametrize(
    "pairs",
    [
        [(0.9, 0.4), (0.2, 0.6), (0.6, 0.6), (0.7, 0.7)],
        [(0.99, 0.51), (0.2, 0.2), (0.6, 0.6), (0.7, 0.7)],
        [(0.9, math.nan), (0.2, 0.2), (0.6, 0.6), (0.7, 0.7)],
    ],
    ids=["flips", "difference", "no number"],
)
def test_beyond_a_limit(pairs: list[tuple[float, float]]) -> None:
    parity = compare(pairs)
    assert not parity.is_within_limits
    with pytest.raises(EngineError, match=r"at most 25\.00% flipped labels and a mean difference of at most 0\.1"):
        parity.refuse_beyond_limits("here", "It", "mend it")


def test_a_missing_answer_is_no_difference_and_one_that_only_the_export_misses_is_a_flip() -> None:
    reviews = [Review("好", 1)] * 4
    sure, none = answer(0.1, 0.9), Prediction(None)
    parity = compare_answers(reviews, [sure, sure, none, sure], [sure, none, none, sure], LIMITS)
    assert (parity.reviews, parity.missing, parity.flips) == (4, 2, 1)
    assert parity.difference_max == 0
    assert (parity.accuracy, parity.accuracy_checkpoint) == (0.5, 0.75)
    with pytest.raises(EngineError) as refused:
        compare_answers(reviews, [sure] * 4, [none] * 4, LIMITS)
    assert refused.value.next_step
