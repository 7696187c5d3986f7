"""How sure a figure is: the interval of an accuracy, and two models on the same reviews.

Two models are compared by the exact McNemar test (chance) and a paired bootstrap (size of the difference). Where the
data choose which two are looked at, as when the best of several is named, the p-values of all pairs that could have
been chosen are a family, and Holm's correction holds the chance of any false claim among them to the level, whatever
is chosen and however the models' mistakes go together. The bootstrap of every other figure stands in `bootstrap`; how
many reviews would show a difference in `power`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# A difference is called shown when chance alone would give one as large less often than this.
SIGNIFICANCE_LEVEL = 0.05
CONFIDENCE = 0.95
# Enough that a bound of a 95% interval moves by a few hundredths of its width from seed to seed.
RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A range that holds the true value in `confidence` of all samples."""

    low: float
    high: float
    confidence: float = CONFIDENCE


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Two models on the same reviews.

    Attributes:
        reviews: number of reviews that both answered.
        fixed: reviews that the first model had wrong and the second has right.
        broken: reviews that the first model had right and the second has wrong.
        difference: accuracy of the second minus accuracy of the first, as a share.
        interval: paired bootstrap interval of the difference.
        p_value: exact McNemar, two-sided: how often chance alone would split fixed and broken at least so unevenly.
            It is that of this pair alone.
        p_value_holm: the same after Holm's correction for the family that the pair belongs to; None where it stands
            alone.
    """

    reviews: int
    fixed: int
    broken: int
    difference: float
    interval: Interval
    p_value: float
    p_value_holm: float | None = None

    @property
    def is_shown(self) -> bool:
        """Whether the difference is more than chance explains, for a pair that was chosen before the data came."""
        return self.p_value < SIGNIFICANCE_LEVEL

    @property
    def p_value_in_family(self) -> float:
        """The p-value after the correction, where there is one."""
        return self.p_value if self.p_value_holm is None else self.p_value_holm

    @property
    def is_shown_in_family(self) -> bool:
        """Whether the difference is more than chance explains, for a pair that the data chose from its family."""
        return self.p_value_in_family < SIGNIFICANCE_LEVEL

    def turn_round(self) -> PairedTest:
        """Return the same test with the two models changed over."""
        interval = Interval(-self.interval.high, -self.interval.low, self.interval.confidence)
        return replace(self, fixed=self.broken, broken=self.fixed, difference=-self.difference, interval=interval)

    def to_dict(self) -> dict[str, Any]:
        """Return the test as plain JSON values."""
        return {**asdict(self), "is_shown": self.is_shown, "is_shown_holm": self.is_shown_in_family}


def compute_wilson_interval(correct: int, total: int, confidence: float = CONFIDENCE) -> Interval:
    """Return the Wilson score interval of a share; unlike the textbook one it stays within 0 and 1.

    Raises:
        ValueError: when `total` is 0 or `correct` is not within 0..total.

    Example:
        >>> interval = compute_wilson_interval(81, 263)
        >>> round(interval.low, 4), round(interval.high, 4)
        (0.2553, 0.3662)
    """
    from scipy.stats import binomtest

    bounds = binomtest(correct, total).proportion_ci(confidence_level=confidence, method="wilson")
    return Interval(float(bounds.low), float(bounds.high), confidence)


def compare_paired(first: Sequence[bool], second: Sequence[bool], *, seed: int = 0) -> PairedTest:
    """Return the exact McNemar test and the paired bootstrap of two models.

    Args:
        first: (n_reviews,) whether the first model was right.
        second: (n_reviews,) whether the second model was right, on the same reviews in the same order.
        seed: seed of the bootstrap.

    Raises:
        ValueError: when the two lists differ in length or are empty.

    Example:
        >>> test = compare_paired([True] * 2 + [False] * 8, [False] * 2 + [True] * 8)
        >>> test.fixed, test.broken, round(test.p_value, 4)
        (8, 2, 0.1094)
    """
    if not first or len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} answers: expected as many of both, and at least one")
    fixed = sum(not was_right and is_right for was_right, is_right in zip(first, second, strict=True))
    broken = sum(was_right and not is_right for was_right, is_right in zip(first, second, strict=True))
    interval = bootstrap_difference(fixed, broken, len(first), seed=seed)
    difference = (fixed - broken) / len(first)
    return PairedTest(len(first), fixed, broken, difference, interval, compute_mcnemar(fixed, broken))


def compute_mcnemar(fixed: int, broken: int) -> float:
    """Return the two-sided p-value of the exact McNemar test: a fair coin thrown for every changed review."""
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
    """Return tests that are one family with their corrected p-values; a single one stays as it is."""
    if len(tests) < 2:
        return dict(tests)
    adjusted = adjust_holm([test.p_value for test in tests.values()])
    return {
        key: replace(test, p_value_holm=float(value))
        for (key, test), value in zip(tests.items(), adjusted, strict=True)
    }


def bootstrap_difference(
    fixed: int, broken: int, reviews: int, *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Return the percentile interval of a difference of accuracies when the reviews are drawn again in pairs.

    A review counts as fixed, broken or unchanged and nothing else, so that drawing n reviews with replacement is one
    multinomial draw of these three counts: the same bootstrap (Efron 1979), thousands of times faster.
    """
    import numpy as np

    shares = np.array([fixed, broken, reviews - fixed - broken]) / reviews
    draws = np.random.default_rng(seed).multinomial(reviews, shares, size=resamples)  # (resamples, 3)
    return take_percentiles((draws[:, 0] - draws[:, 1]) / reviews)


def compare_unpaired(first_correct: int, first_total: int, second_correct: int, second_total: int) -> Interval:
    """Return the interval of the difference (second minus first) of accuracies on two different sets of reviews.

    Newcombe 1998 (Statistics in Medicine 17:873-890), method 10: built from the Wilson intervals of the two.

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
    """Return the middle `confidence` of bootstrap values (resamples,); those that are no number are passed over."""
    import numpy as np

    tail = (1 - confidence) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high), confidence)
