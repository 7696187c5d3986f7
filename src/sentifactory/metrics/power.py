"""How many test reviews are needed to show a difference between two models, and the power of a given number.

The power is exact, for the exact two-sided McNemar test of `significance`: the number of changed reviews is binomial,
and of these the number of fixed ones. The search starts at the formula of Connor (1987, Biometrics 43:207-211), which
is for the asymptotic test and gives somewhat fewer reviews.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.metrics.significance import SIGNIFICANCE_LEVEL, find_critical_count

POWER = 0.8
MAX_REVIEWS = 2_000_000
# Smaller binomial weights are left out; their sum is far below the displayed precision.
_NEGLIGIBLE = 1e-9
_DIFFERENCE_STEP = 1e-4


@dataclass(frozen=True, slots=True)
class PowerAnswer:
    """The number of reviews, and the power that it gives.

    Attributes:
        difference: accuracy of the better model minus that of the other, as a share.
        discordance: share of reviews that only one of the two models has right.
        power: the wanted probability that the test shows an existing difference.
        level: significance level of the test, two-sided.
        reviews: the reviews needed, or those that were given.
        approximate_reviews: the reviews needed according to Connor's formula.
        achieved: the power with that many reviews.
        is_assumed: whether no discordance was given, so that independent mistakes are assumed.
    """

    difference: float
    discordance: float
    power: float
    level: float
    reviews: int
    approximate_reviews: int
    achieved: float
    is_assumed: bool = False

    def describe(self) -> str:
        """Return the answer as sentences."""
        said = (
            f"{self.reviews} test reviews show a difference of {self.difference * 100:g} points with a power of "
            f"{self.achieved * 100:.1f}% (exact McNemar test, two-sided, level {self.level:g}), if "
            f"{self.discordance * 100:.3g}% of the reviews are answered right by only one of the two models."
        )
        if self.is_assumed:
            said += (
                " This share assumes independent mistakes; models mostly fail on the same reviews, and then fewer "
                "reviews are needed. Take it from the report of a comparison and give it as --discordance."
            )
        return said

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as plain JSON values."""
        return asdict(self)


def answer_power(
    difference: float | None,
    base_accuracy: float | None,
    tuned_accuracy: float | None,
    discordance: float | None,
    reviews: int | None,
    power: float,
    level: float,
) -> PowerAnswer:
    """Return how many reviews show a difference or, if `reviews` is given, the power of that many.

    Raises:
        ConfigError: when the options do not define the difference, or a share is out of range.
    """
    if base_accuracy is not None and tuned_accuracy is not None and difference is None:
        difference = abs(tuned_accuracy - base_accuracy)
        assumed = estimate_discordance(base_accuracy, tuned_accuracy)
        shared = assumed if discordance is None else discordance
    elif difference is not None and discordance is not None and base_accuracy is None and tuned_accuracy is None:
        shared = discordance
    else:
        raise ConfigError(
            "The options do not define one difference",
            expected="--difference with --discordance, or --base_accuracy with --tuned_accuracy",
            code="power-options",
        )
    check_shares(difference, shared, power, level)
    if reviews is None:
        answer = count_reviews_needed(difference, shared, power=power, level=level)
    elif reviews < 1:
        raise ConfigError(f"--reviews is {reviews}", expected="1 or more", code="option-value")
    else:
        achieved = compute_power(reviews, difference, shared, level=level)
        needed = approximate_reviews(difference, shared, power=power, level=level)
        answer = PowerAnswer(difference, shared, power, level, reviews, needed, achieved)
    return replace(answer, is_assumed=discordance is None)


def count_reviews_needed(
    difference: float, discordance: float, *, power: float = POWER, level: float = SIGNIFICANCE_LEVEL
) -> PowerAnswer:
    """Return the number of reviews with which the exact McNemar test shows a difference with probability `power`.

    The power of an exact test is not monotonic in the number of reviews; the result is the first number whose power,
    and that of ten larger numbers up to 5 % above it, are all sufficient.

    Raises:
        ConfigError: when a share is out of range, or more than `MAX_REVIEWS` are needed.
    """
    check_shares(difference, discordance, power, level)
    start = approximate_reviews(difference, discordance, power=power, level=level)
    if start > MAX_REVIEWS:
        raise ConfigError(
            f"More than {MAX_REVIEWS} reviews are needed",
            expected="a larger difference",
            next_step="choose the smallest difference that matters to you",
            code="power-too-many",
        )

    def is_enough(reviews: int) -> bool:
        tried = {reviews + reviews * step // 200 for step in range(11)}
        return all(compute_power(n, difference, discordance, level=level) >= power for n in sorted(tried))

    low, high = 1, max(4, start)
    while not is_enough(high):
        low, high = high, high + high // 4 + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    achieved = compute_power(high, difference, discordance, level=level)
    return PowerAnswer(difference, discordance, power, level, high, start, achieved)


def compute_power(reviews: int, difference: float, discordance: float, *, level: float = SIGNIFICANCE_LEVEL) -> float:
    """Return the probability that the exact McNemar test shows an existing difference, in the right direction.

    Args:
        reviews: number of reviews.
        difference: accuracy of the better model minus that of the other.
        discordance: share of reviews that only one of the two models has right; at least `difference`.
        level: significance level, two-sided.
    """
    import numpy as np
    from scipy.stats import binom

    changed = np.arange(reviews + 1)
    weights = binom.pmf(changed, reviews, discordance)
    changed, weights = changed[weights > _NEGLIGIBLE], weights[weights > _NEGLIGIBLE]
    fixed_share = (discordance + difference) / (2 * discordance)
    limits = np.array([find_critical_count(int(m), level) for m in changed])
    # Significant when at most `limit` of the changed reviews are broken.
    shown = np.where(limits >= 0, binom.cdf(limits, changed, 1 - fixed_share), 0.0)
    return float((weights * shown).sum())


def find_smallest_difference(reviews: int, *, power: float = POWER, level: float = SIGNIFICANCE_LEVEL) -> float | None:
    """Return the smallest difference that so many reviews show with probability `power`; None if they show none.

    This is the best case: the better model loses no review that the other one has right. Models that differ on more
    reviews need more of them.

    Example:
        >>> round(find_smallest_difference(30), 2), find_smallest_difference(5)
        (0.25, None)
    """
    low, high = 0.0, 1.0
    if compute_power(reviews, high, high, level=level) < power:
        return None
    while high - low > _DIFFERENCE_STEP:
        middle = (low + high) / 2
        low, high = (low, middle) if compute_power(reviews, middle, middle, level=level) >= power else (middle, high)
    return high


def approximate_reviews(
    difference: float, discordance: float, *, power: float = POWER, level: float = SIGNIFICANCE_LEVEL
) -> int:
    """Return Connor's approximation of the number of reviews that a McNemar test needs.

    Example:
        >>> approximate_reviews(0.1, 0.3)
        234
    """
    from scipy.stats import norm

    z_level, z_power = norm.ppf(1 - level / 2), norm.ppf(power)
    root = z_level * math.sqrt(discordance) + z_power * math.sqrt(discordance - difference**2)
    return math.ceil((root / difference) ** 2)


def estimate_discordance(first_accuracy: float, second_accuracy: float) -> float:
    """Return the share of reviews that only one of two models has right if their mistakes are independent.

    Models mostly fail on the same reviews, so that the true share is lower and fewer reviews are needed.
    """
    return first_accuracy * (1 - second_accuracy) + second_accuracy * (1 - first_accuracy)


def check_shares(difference: float, discordance: float, power: float, level: float) -> None:
    """Refuse shares that are out of range.

    Raises:
        ConfigError: naming the share.
    """
    if not 0 < difference < 1:
        raise ConfigError(
            f"The difference is {difference:g}",
            expected="a share above 0 and below 1, such as 0.03",
            code="power-difference",
        )
    if not difference <= discordance <= 1:
        raise ConfigError(
            f"The discordance is {discordance:g}",
            expected=f"a share from the difference ({difference:g}) to 1",
            code="power-discordance",
        )
    if not 0 < power < 1 or not 0 < level < 1:
        raise ConfigError(
            f"Power {power:g} and level {level:g}", expected="shares above 0 and below 1", code="power-level"
        )
