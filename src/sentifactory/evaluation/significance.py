"""How sure a figure is: the interval of an accuracy, and the exact test of two models on the same reviews.

Not covered yet: bootstrap intervals, and the number of reviews that would show a given difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

# A difference is called shown when chance alone would give one as large less often than this.
SIGNIFICANCE_LEVEL = 0.05
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A range that holds the true share in `confidence` of all samples."""

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
        p_value: exact McNemar, two-sided: how often chance alone would split fixed and broken at least so unevenly.
    """

    reviews: int
    fixed: int
    broken: int
    difference: float
    p_value: float

    @property
    def is_shown(self) -> bool:
        """Whether the difference is more than chance explains."""
        return self.p_value < SIGNIFICANCE_LEVEL

    def to_dict(self) -> dict[str, Any]:
        """Return the test as plain JSON values."""
        return {**asdict(self), "is_shown": self.is_shown}


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


def compare_paired(first: Sequence[bool], second: Sequence[bool]) -> PairedTest:
    """Return the exact McNemar test of two models.

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
    from scipy.stats import binomtest

    if not first or len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} answers: expected as many of both, and at least one")
    fixed = sum(not was_right and is_right for was_right, is_right in zip(first, second, strict=True))
    broken = sum(was_right and not is_right for was_right, is_right in zip(first, second, strict=True))
    changed = fixed + broken
    p_value = float(binomtest(min(fixed, broken), changed, 0.5).pvalue) if changed else 1.0
    return PairedTest(len(first), fixed, broken, (sum(second) - sum(first)) / len(first), p_value)
