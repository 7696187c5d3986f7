"""Intervals and paired tests, against published worked examples and an independent calculation."""

from __future__ import annotations

from math import comb, sqrt

import numpy as np
import pytest
from scipy.stats import multinomial, norm

from sentifactory.metrics import significance
from sentifactory.metrics.significance import (
    SIGNIFICANCE_LEVEL,
    compare_paired,
    compare_unpaired,
    compute_mcnemar,
    compute_paired_interval,
    compute_wilson_interval,
    correct_family,
    find_critical_value,
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


@pytest.mark.slow
def test_wilson_covers_as_often_as_it_claims() -> None:
    dice = np.random.default_rng(5)
    runs = 2000
    hits = 0
    for correct in dice.binomial(300, 0.86, size=runs):
        interval = compute_wilson_interval(int(correct), 300)
        hits += interval.low <= 0.86 <= interval.high
    assert count_covered(hits, runs)


def test_the_score_interval_against_a_published_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fagerland, Lydersen and Laake 2014 (Stat Med 33:2850-75): 1 and 7 of 21 pairs, Tango's interval.

    It is for the critical value of the normal distribution; with that of the exact test, of p = 0.070, it is wider.
    """
    ours = compute_paired_interval(1, 7, 21)
    assert ours.low < 0 < ours.high
    monkeypatch.setattr(significance, "find_critical_value", lambda changed, level: norm.ppf(1 - level / 2))
    published = compute_paired_interval(1, 7, 21)
    assert published.low == pytest.approx(-0.517, abs=5e-4)
    assert published.high == pytest.approx(-0.026, abs=5e-4)
    assert ours.low < published.low


@pytest.mark.parametrize("level", [SIGNIFICANCE_LEVEL, SIGNIFICANCE_LEVEL / 3, SIGNIFICANCE_LEVEL / 10])
def test_the_interval_excludes_no_difference_exactly_where_the_test_shows_one(level: float) -> None:
    pairs = [(fixed, broken) for fixed in range(12) for broken in range(12) if fixed or broken] + [(61, 40), (61, 39)]
    for fixed, broken in pairs:
        for reviews in (fixed + broken, fixed + broken + 30):
            interval = compute_paired_interval(fixed, broken, reviews, level)
            assert -1 <= interval.low <= (fixed - broken) / reviews <= interval.high <= 1
            assert (compute_mcnemar(fixed, broken) < level) == (not interval.low <= 0 <= interval.high)


def test_nine_fixed_and_two_broken_of_thirty_show_nothing() -> None:
    """A percentile bootstrap has 3.3 to 43.3 points here, next to p = 0.065."""
    test = compare_paired(*flips(9, 2, both_right=10, both_wrong=9))
    assert not test.is_shown
    assert test.interval.low < 0 < test.difference < test.interval.high


def test_the_critical_value_approaches_that_of_the_normal_distribution() -> None:
    assert find_critical_value(0) == pytest.approx(norm.ppf(0.975))
    values = [find_critical_value(changed) for changed in range(1, 2000)]
    assert min(values) >= norm.ppf(0.975)
    assert values[-1] == pytest.approx(norm.ppf(0.975), abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("reviews", [30, 60])
def test_the_paired_interval_covers_at_least_as_often_as_it_claims(reviews: int) -> None:
    """The exact probability, summed over all outcomes."""
    outcomes = [(fixed, broken) for fixed in range(reviews + 1) for broken in range(reviews + 1 - fixed)]
    intervals = [compute_paired_interval(fixed, broken, reviews) for fixed, broken in outcomes]
    lows, highs = (np.array([getattr(one, end) for one in intervals]) for end in ("low", "high"))
    counts = np.array([(fixed, broken, reviews - fixed - broken) for fixed, broken in outcomes])
    for changed in (0.05, 0.1, 0.2, 0.3, 0.5, 0.8):
        for share in (0.0, 0.3, 0.5, 0.9, 1.0):  # of the changes in excess in one direction
            truth = changed * share
            weights = multinomial.pmf(counts, reviews, [(changed + truth) / 2, (changed - truth) / 2, 1 - changed])
            covered = weights[(lows <= truth + 1e-9) & (truth - 1e-9 <= highs)].sum()
            assert covered >= 0.95, (changed, share, covered)


def test_corrected_intervals_agree_with_the_corrected_tests() -> None:
    family = {
        "strong": compare_paired(*flips(30, 5, both_right=60)),
        "weak": compare_paired(*flips(12, 3, both_right=60)),
        "weaker": compare_paired(*flips(12, 4, both_right=60)),
        "none": compare_paired(*flips(5, 5, both_right=60)),
    }
    corrected = correct_family(family)
    assert list(corrected) == list(family)
    assert [one.is_shown for one in corrected.values()] == [True, True, False, False]
    assert [one.is_shown_in_family for one in corrected.values()] == [True, False, False, False]
    for test in corrected.values():
        spread = test.interval_holm
        assert spread is not None
        assert test.is_shown_in_family == (not spread.low <= 0 <= spread.high)
        assert spread.low <= test.interval.low < test.interval.high <= spread.high
        assert test.reverse().interval_holm == spread.negate()
    levels = [1 - one.interval_holm.confidence for one in corrected.values() if one.interval_holm]
    assert levels == pytest.approx([0.05 / 4, 0.05 / 3, 0.05 / 3, 0.05 / 3])
    alone = {"strong": family["strong"]}
    assert correct_family(alone) == alone
    assert alone["strong"].interval_holm is None


def test_the_interval_belongs_to_the_difference_and_turns_round_with_it() -> None:
    test = compare_paired(*flips(40, 10, both_right=100, both_wrong=50))
    assert test.interval.low < test.difference < test.interval.high
    turned = test.reverse()
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
