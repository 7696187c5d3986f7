"""Intervals and paired tests, against published worked examples and an independent calculation."""

from __future__ import annotations

from math import comb, sqrt

import numpy as np
import pytest

from sentifactory.evaluation.significance import (
    bootstrap_difference,
    compare_paired,
    compare_unpaired,
    compute_wilson_interval,
)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3 (score method without continuity correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_against_the_published_table(correct: int, total: int, low: float, high: float) -> None:
    interval = compute_wilson_interval(correct, total)
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)


@pytest.mark.parametrize(("correct", "total"), [(0, 1), (1, 1), (5, 10), (175, 179), (300, 300)])
def test_wilson_against_its_formula(correct: int, total: int) -> None:
    z = 1.959963984540054
    share = correct / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    interval = compute_wilson_interval(correct, total)
    assert interval.low == pytest.approx(max(0, centre - half), abs=1e-9)
    assert interval.high == pytest.approx(min(1, centre + half), abs=1e-9)
    assert 0 <= interval.low <= share <= interval.high <= 1


def test_the_reference_tutorials_179_samples() -> None:
    """97.77 % of 179 is 175 right; FACTS says about 94.4 to 99.1."""
    interval = compute_wilson_interval(175, 179)
    assert interval.low == pytest.approx(0.944, abs=5e-4)
    assert interval.high == pytest.approx(0.991, abs=5e-4)


def flips(fixed: int, broken: int, both_right: int = 3, both_wrong: int = 2) -> tuple[list[bool], list[bool]]:
    first = [False] * fixed + [True] * broken + [True] * both_right + [False] * both_wrong
    second = [True] * fixed + [False] * broken + [True] * both_right + [False] * both_wrong
    return first, second


@pytest.mark.parametrize(("fixed", "broken"), [(8, 2), (121, 16), (16, 121), (5, 0), (7, 7), (1, 0)])
def test_mcnemar_against_a_direct_sum(fixed: int, broken: int) -> None:
    test = compare_paired(*flips(fixed, broken))
    changed = fixed + broken
    tail = sum(comb(changed, k) for k in range(min(fixed, broken) + 1)) / 2**changed
    assert (test.fixed, test.broken) == (fixed, broken)
    assert test.p_value == pytest.approx(min(1.0, 2 * tail))
    assert test.difference == pytest.approx((fixed - broken) / test.reviews)


def test_mcnemar_against_a_published_example() -> None:
    """Fagerland, Lydersen and Laake 2013 (BMC Med Res Methodol 13:91), table 1: b = 1, c = 7, exact p = 0.070."""
    assert compare_paired(*flips(1, 7)).p_value == pytest.approx(0.0703, abs=5e-5)


def test_models_that_agree_everywhere_show_nothing() -> None:
    test = compare_paired(*flips(0, 0))
    assert test.p_value == 1.0
    assert not test.is_shown
    assert test.difference == 0


def test_what_counts_as_shown() -> None:
    assert compare_paired(*flips(6, 0)).is_shown  # p = 2 / 2^6 = 0.031
    assert not compare_paired(*flips(5, 0)).is_shown  # p = 2 / 2^5 = 0.0625


@pytest.mark.parametrize(("first", "second"), [([], []), ([True], [True, False])])
def test_lists_of_different_length_are_refused(first: list[bool], second: list[bool]) -> None:
    with pytest.raises(ValueError, match="expected"):
        compare_paired(first, second)


def count_covered(hits: int, runs: int) -> bool:
    """Whether a share of covering intervals is 95% within three standard errors of so many runs."""
    return abs(hits / runs - 0.95) <= 3 * sqrt(0.95 * 0.05 / runs)


def test_wilson_covers_as_often_as_it_claims() -> None:
    dice = np.random.default_rng(5)
    runs = 2000
    hits = 0
    for correct in dice.binomial(300, 0.86, size=runs):
        interval = compute_wilson_interval(int(correct), 300)
        hits += interval.low <= 0.86 <= interval.high
    assert count_covered(hits, runs)


def test_the_paired_bootstrap_covers_as_often_as_it_claims() -> None:
    dice = np.random.default_rng(6)
    runs, truth = 600, 0.15 - 0.06
    hits = 0
    for fixed, broken, _ in dice.multinomial(400, [0.15, 0.06, 0.79], size=runs):
        interval = bootstrap_difference(int(fixed), int(broken), 400, seed=int(fixed), resamples=2000)
        hits += interval.low <= truth <= interval.high
    assert count_covered(hits, runs)


def test_the_multinomial_draw_is_the_bootstrap_of_the_reviews() -> None:
    """The textbook loop over reviews and scipy's own paired bootstrap give the same bounds."""
    from scipy.stats import bootstrap

    changes = np.array([1] * 60 + [-1] * 20 + [0] * 220)
    scipys = bootstrap((changes,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1))
    interval = bootstrap_difference(60, 20, 300)
    assert interval.low == pytest.approx(scipys.confidence_interval.low, abs=0.004)
    assert interval.high == pytest.approx(scipys.confidence_interval.high, abs=0.004)


def test_the_interval_belongs_to_the_difference_and_turns_round_with_it() -> None:
    test = compare_paired(*flips(40, 10, both_right=100, both_wrong=50))
    assert test.interval.low < test.difference < test.interval.high
    turned = test.turn_round()
    assert (turned.fixed, turned.broken) == (test.broken, test.fixed)
    assert (turned.interval.low, turned.interval.high) == (-test.interval.high, -test.interval.low)
    assert turned.p_value == test.p_value


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:873-890, table II, method 10.
        ((48, 80), (56, 70), 0.0524, 0.3339),
        ((3, 10), (9, 10), 0.1705, 0.8090),
        ((0, 29), (5, 56), -0.0381, 0.1926),
        ((2, 7), (6, 7), 0.0582, 0.8062),
        ((0, 20), (0, 10), -0.1611, 0.2775),
        ((0, 10), (10, 10), 0.6075, 1.0000),
    ],
)
def test_unpaired_differences_against_the_published_table(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    interval = compare_unpaired(*first, *second)
    assert interval.low == pytest.approx(low, abs=6e-5)
    assert interval.high == pytest.approx(high, abs=6e-5)
