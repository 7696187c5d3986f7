"""Significance: the interval of an accuracy, and the comparison of two models on the same reviews.

Two models are compared by the exact McNemar test (significance) and by Tango's score interval at that test's critical
value (size of the difference): the interval contains 0 exactly when no difference is shown. Where the data choose the
pair, as when the best of several models is named, the p-values of all pairs that could have been chosen are a family,
and Holm's correction limits the probability of any false claim among them to the level, whichever pair is chosen and
however the models' mistakes correlate. Other metrics are bootstrapped in `bootstrap`; `power` says how many reviews
show a difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# A difference is called shown when its p-value is below this.
SIGNIFICANCE_LEVEL = 0.05
CONFIDENCE = 0.95
_AT_THE_END = 1 - 1e-12  # differences up to which a bound is searched; at 1 the score statistic divides 0 by 0


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval that contains the true value in `confidence` of all samples."""

    low: float
    high: float
    confidence: float = CONFIDENCE

    def negate(self) -> Interval:
        """Return the interval of the value with the other sign."""
        return Interval(-self.high, -self.low, self.confidence)


@dataclass(frozen=True, slots=True)
class PairedTest:
    """The comparison of two models on the same reviews.

    Attributes:
        reviews: number of reviews that both answered.
        fixed: reviews that the first model had wrong and the second has right.
        broken: reviews that the first model had right and the second has wrong.
        difference: accuracy of the second minus accuracy of the first, as a share.
        interval: of the difference, without correction; contains 0 unless `is_shown`.
        p_value: of the exact McNemar test, two-sided, without correction.
        p_value_holm: the p-value after Holm's correction for the family of the pair; None where it has no family.
        interval_holm: the interval at the level at which Holm's procedure decides about the pair; contains 0 unless
            `is_shown_in_family`. None where the pair has no family.
    """

    reviews: int
    fixed: int
    broken: int
    difference: float
    interval: Interval
    p_value: float
    p_value_holm: float | None = None
    interval_holm: Interval | None = None

    @property
    def is_shown(self) -> bool:
        """Whether the difference is significant, for a pair that was chosen before the data were seen."""
        return self.p_value < SIGNIFICANCE_LEVEL

    @property
    def p_value_in_family(self) -> float:
        """The p-value after the correction, if there is one."""
        return self.p_value if self.p_value_holm is None else self.p_value_holm

    @property
    def is_shown_in_family(self) -> bool:
        """Whether the difference is significant, for a pair that the data chose from its family."""
        return self.p_value_in_family < SIGNIFICANCE_LEVEL

    def reverse(self) -> PairedTest:
        """Return the same test with the two models swapped."""
        return replace(
            self,
            fixed=self.broken,
            broken=self.fixed,
            difference=-self.difference,
            interval=self.interval.negate(),
            interval_holm=self.interval_holm.negate() if self.interval_holm else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the test as plain JSON values."""
        return {**asdict(self), "is_shown": self.is_shown, "is_shown_holm": self.is_shown_in_family}


def compute_wilson_interval(correct: int, total: int, confidence: float = CONFIDENCE) -> Interval:
    """Return the Wilson score interval of a share; unlike the normal approximation it stays within 0 and 1.

    Raises:
        ValueError: when `total` is 0 or `correct` is not within 0..total.

    Example:
        >>> interval = compute_wilson_interval(81, 263)
        >>> round(interval.low, 4), round(interval.high, 4)
        (0.2553, 0.3662)
    """
    return _compute_interval(correct, total, confidence, "wilson")


def compute_exact_interval(count: int, total: int, confidence: float = CONFIDENCE) -> Interval:
    """Return the Clopper-Pearson interval of a share, which holds for counts near 0 as well.

    Example:
        >>> interval = compute_exact_interval(0, 59)
        >>> round(interval.low, 3), round(interval.high, 3)
        (0.0, 0.061)
    """
    return _compute_interval(count, total, confidence, "exact")


def _compute_interval(count: int, total: int, confidence: float, method: Literal["wilson", "exact"]) -> Interval:
    from scipy.stats import binomtest

    bounds = binomtest(count, total).proportion_ci(confidence_level=confidence, method=method)
    return Interval(float(bounds.low), float(bounds.high), confidence)


def compare_paired(first: Sequence[bool], second: Sequence[bool]) -> PairedTest:
    """Return the exact McNemar test of two models, and the interval of the difference that belongs to it.

    Args:
        first: (n_reviews,) whether the first model was right.
        second: (n_reviews,) whether the second model was right, on the same reviews in the same order.

    Raises:
        ValueError: when the two lists differ in length or are empty.

    Example:
        >>> test = compare_paired([True] * 2 + [False] * 8, [False] * 2 + [True] * 8)
        >>> test.fixed, test.broken, round(test.p_value, 4)
        (8, 2, 0.1094)
    """
    if not first or len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} answers: expected the same number, at least 1")
    fixed = sum(not was_right and is_right for was_right, is_right in zip(first, second, strict=True))
    broken = sum(was_right and not is_right for was_right, is_right in zip(first, second, strict=True))
    interval = compute_paired_interval(fixed, broken, len(first))
    difference = (fixed - broken) / len(first)
    return PairedTest(len(first), fixed, broken, difference, interval, compute_mcnemar(fixed, broken))


def compute_mcnemar(fixed: int, broken: int) -> float:
    """Return the two-sided p-value of the exact McNemar test, a binomial test on the changed reviews."""
    from scipy.stats import binomtest

    changed = fixed + broken
    return float(binomtest(min(fixed, broken), changed, 0.5).pvalue) if changed else 1.0


def adjust_holm(p_values: ArrayLike) -> NDArray:
    """Return p-values (..., n_tests) after Holm's correction for the tests of the last axis.

    Holm 1979 (A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6:65-70).

    Example:
        >>> adjust_holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    import numpy as np

    values = np.asarray(p_values, dtype=float)
    n_tests = values.shape[-1]
    order = np.argsort(values, axis=-1, kind="stable")
    stepped = np.take_along_axis(values, order, axis=-1) * (n_tests - np.arange(n_tests))
    adjusted = np.minimum(1.0, np.maximum.accumulate(stepped, axis=-1))
    found = np.empty_like(adjusted)
    np.put_along_axis(found, order, adjusted, axis=-1)
    return found


def correct_family(tests: Mapping[Any, PairedTest]) -> dict[Any, PairedTest]:
    """Return the tests of one family with their corrected p-values and intervals; a single test is unchanged.

    Holm's procedure goes from the smallest p-value to the largest, decides about each of n tests at the level divided
    by n, n - 1, ..., 1, and stops where a test is not significant. The interval of a pair is at the level of that
    decision: of its own step, or of the stop. So it contains 0 exactly when the pair is not shown. Each is an interval
    of its own difference with at least 95% confidence; together they are no simultaneous intervals.
    """
    if len(tests) < 2:
        return dict(tests)
    adjusted = adjust_holm([test.p_value for test in tests.values()])
    corrected = {}
    n_decided = 0  # tests before this one that are significant
    for key, value in sorted(zip(tests, adjusted, strict=True), key=lambda pair: (pair[1], tests[pair[0]].p_value)):
        test = tests[key]
        level = SIGNIFICANCE_LEVEL / (len(tests) - n_decided)
        interval = compute_paired_interval(test.fixed, test.broken, test.reviews, level)
        corrected[key] = replace(test, p_value_holm=float(value), interval_holm=interval)
        n_decided += corrected[key].is_shown_in_family
    return {key: corrected[key] for key in tests}


def compute_paired_interval(fixed: int, broken: int, reviews: int, level: float = SIGNIFICANCE_LEVEL) -> Interval:
    """Return the interval of a difference of accuracies on the same reviews that agrees with the exact McNemar test.

    These are all differences that the score statistic of Tango 1998 (Statistics in Medicine 17:891-908) does not
    reject. At a difference of 0 that statistic is McNemar's, (fixed - broken) / sqrt(fixed + broken). Its critical
    value is here not that of the normal distribution but that of the exact test for so many changed reviews
    (`find_critical_value`), which is a continuity correction. Without it, the interval of few reviews would exclude
    differences of 0 that the exact test does not. It covers the true difference somewhat more often than it claims,
    as the exact test claims less often than its level allows.

    Args:
        fixed: reviews that only the second model has right.
        broken: reviews that only the first model has right.
        reviews: number of all reviews.
        level: of the test.

    Example:
        >>> interval = compute_paired_interval(8, 2, 30)
        >>> round(interval.low, 3), round(interval.high, 3)
        (-0.039, 0.425)
    """
    from scipy.optimize import brentq

    critical, difference = find_critical_value(fixed + broken, level), (fixed - broken) / reviews

    def find_bound(end: float, sign: int) -> float:
        if difference == end:
            return end

        def exceed_critical(at: float) -> float:
            return sign * _score_difference(fixed, broken, reviews, at) - critical

        return float(brentq(exceed_critical, difference, end * _AT_THE_END))

    return Interval(find_bound(-1.0, 1), find_bound(1.0, -1), 1 - level)


def _score_difference(fixed: int, broken: int, reviews: int, difference: float) -> float:
    """Return Tango's score statistic: how many standard errors the observed difference is above a supposed one."""
    # The share of broken reviews that is the most likely one if the difference is the supposed one.
    linear = (2 * reviews - fixed + broken) * difference - fixed - broken
    constant = broken * difference * (1 - difference)
    share = (math.sqrt(linear**2 + 8 * reviews * constant) - linear) / (4 * reviews)
    variance = reviews * (2 * share + difference * (1 - difference))
    return (fixed - broken - reviews * difference) / math.sqrt(variance) if variance > 0 else 0.0


def find_critical_value(changed: int, level: float = SIGNIFICANCE_LEVEL) -> float:
    """Return the value of McNemar's statistic, |fixed - broken| / sqrt(changed), above which the exact test rejects.

    The statistic has few values; this is halfway between the smallest that is significant and the next one below, but
    at least the critical value of the normal distribution.

    Example:
        >>> find_critical_value(9)  # 8 to 1 is significant (7 / 3), 7 to 2 is not (5 / 3)
        2.0
    """
    from scipy.stats import norm

    least = float(norm.ppf(1 - level / 2))
    exact = (changed - 2 * find_critical_count(changed, level) - 1) / math.sqrt(changed) if changed else 0.0
    return max(least, exact)


@cache
def find_critical_count(changed: int, level: float = SIGNIFICANCE_LEVEL) -> int:
    """Return up to how many changes in one direction, among `changed`, the exact test is significant; -1 for none.

    Example:
        >>> find_critical_count(5), find_critical_count(6), find_critical_count(9)
        (-1, 0, 1)
    """
    from scipy.stats import binom

    count = int(binom.ppf(level / 2, changed, 0.5))
    while count >= 0 and 2 * binom.cdf(count, changed, 0.5) >= level:
        count -= 1
    return count


def compare_unpaired(first_correct: int, first_total: int, second_correct: int, second_total: int) -> Interval:
    """Return the interval of the difference (second minus first) of accuracies on two different sets of reviews.

    Newcombe 1998 (Statistics in Medicine 17:873-890), method 10: built from both Wilson intervals.

    Example:
        >>> interval = compare_unpaired(48, 80, 56, 70)
        >>> round(interval.low, 4), round(interval.high, 4)
        (0.0524, 0.3339)
    """
    first, second = first_correct / first_total, second_correct / second_total
    a, b = compute_wilson_interval(first_correct, first_total), compute_wilson_interval(second_correct, second_total)
    low = math.hypot(second - b.low, a.high - first)
    high = math.hypot(b.high - second, first - a.low)
    return Interval(second - first - low, second - first + high)


def take_percentiles(values: Any, confidence: float = CONFIDENCE) -> Interval:
    """Return the central `confidence` interval of bootstrap values (resamples,), ignoring NaN."""
    import numpy as np

    tail = (1 - confidence) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high), confidence)
