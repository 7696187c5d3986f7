"""How many reviews show a difference of two models, and how often a given number does.

The power is exact, for the exact two-sided McNemar test that `significance` uses: the number of changed reviews is
binomial, and of these the number of fixed ones is binomial. The search begins at the formula of Connor (1987,
Biometrics 43:207-211), which is for the test without its exactness and asks for somewhat fewer.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.evaluation.significance import SIGNIFICANCE_LEVEL

POWER = 0.8
MAX_REVIEWS = 2_000_000
# Binomial weights below this are left out; their sum stays far below what is shown.
_NEGLIGIBLE = 1e-9


@dataclass(frozen=True, slots=True)
class PowerAnswer:
    """How many reviews show a difference.

    Attributes:
        difference: accuracy of the better model minus that of the other, as a share.
        discordance: share of reviews that just one of the two has right.
        power: the chance wanted that the test shows the difference, if it is there.
        level: significance level of the test, two-sided.
        reviews: the reviews needed, or those that were given.
        approximate_reviews: the reviews needed by Connor's formula.
        achieved: the chance with that many reviews.
        is_assumed: whether the discordance is that of independent mistakes, because none was given.
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
            f"{self.reviews} test reviews show a difference of {self.difference * 100:g} points with a chance of "
            f"{self.achieved * 100:.1f}% (exact McNemar test, two-sided, level {self.level:g}), where "
            f"{self.discordance * 100:.3g}% of the reviews are right by just one of the two models."
        )
        if self.is_assumed:
            said += (
                " That share is taken from independent mistakes; models mostly stumble over the same reviews, and "
                "then fewer are needed. The report of a comparison on some reviews tells it: give it as --discordance."
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
    """Return how many reviews show a difference, or, where `reviews` is given, with what chance these show it.

    Raises:
        ConfigError: when the options do not say which difference, or a share is out of its range.
    """
    if base_accuracy is not None and tuned_accuracy is not None and difference is None:
        difference = abs(tuned_accuracy - base_accuracy)
        assumed = estimate_discordance(base_accuracy, tuned_accuracy)
        shared = assumed if discordance is None else discordance
    elif difference is not None and discordance is not None and base_accuracy is None and tuned_accuracy is None:
        shared = discordance
    else:
        raise ConfigError(
            "It is not clear which difference is meant",
            expected="--difference with --discordance, or --base_accuracy with --tuned_accuracy",
        )
    check_shares(difference, shared, power, level)
    if reviews is None:
        answer = count_reviews_needed(difference, shared, power=power, level=level)
    elif reviews < 1:
        raise ConfigError(f"--reviews is {reviews}", expected="1 or more")
    else:
        achieved = compute_power(reviews, difference, shared, level=level)
        needed = approximate_reviews(difference, shared, power=power, level=level)
        answer = PowerAnswer(difference, shared, power, level, reviews, needed, achieved)
    return replace(answer, is_assumed=discordance is None)


def count_reviews_needed(
    difference: float, discordance: float, *, power: float = POWER, level: float = SIGNIFICANCE_LEVEL
) -> PowerAnswer:
    """Return the number of reviews from which on the exact McNemar test shows a difference with the chance `power`.

    The power of an exact test rises in small steps up and down; the number returned is the first whose power, and
    that of ten further ones spread over the next twentieth, are all enough.

    Raises:
        ConfigError: when a share is out of its range, or more than `MAX_REVIEWS` would be needed.
    """
    check_shares(difference, discordance, power, level)
    start = approximate_reviews(difference, discordance, power=power, level=level)
    if start > MAX_REVIEWS:
        raise ConfigError(
            f"More than {MAX_REVIEWS} reviews would be needed",
            expected="a larger difference",
            next_step="ask for one that would matter to you",
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
    """Return the chance that the exact McNemar test shows a difference that is there.

    Only the right direction counts: a test that calls the worse model the better one has not shown the difference.

    Args:
        reviews: number of reviews.
        difference: accuracy of the better model minus that of the other.
        discordance: share of reviews that just one of the two has right; at least `difference`.
        level: significance level, two-sided.
    """
    import numpy as np
    from scipy.stats import binom

    changed = np.arange(reviews + 1)
    weights = binom.pmf(changed, reviews, discordance)
    changed, weights = changed[weights > _NEGLIGIBLE], weights[weights > _NEGLIGIBLE]
    fixed_share = (discordance + difference) / (2 * discordance)
    limits = np.array([_find_limit(int(m), level) for m in changed])
    # Shown when at most `limit` of the changed reviews are broken ones.
    shown = np.where(limits >= 0, binom.cdf(limits, changed, 1 - fixed_share), 0.0)
    return float((weights * shown).sum())


@cache
def _find_limit(changed: int, level: float) -> int:
    """Return the largest number of broken reviews among `changed` that is still significant, or -1."""
    from scipy.stats import binom

    limit = int(binom.ppf(level / 2, changed, 0.5))
    while limit >= 0 and 2 * binom.cdf(limit, changed, 0.5) >= level:
        limit -= 1
    return limit


def approximate_reviews(
    difference: float, discordance: float, *, power: float = POWER, level: float = SIGNIFICANCE_LEVEL
) -> int:
    """Return Connor's approximation of the reviews needed by a McNemar test.

    Example:
        >>> approximate_reviews(0.1, 0.3)
        234
    """
    from scipy.stats import norm

    z_level, z_power = norm.ppf(1 - level / 2), norm.ppf(power)
    root = z_level * math.sqrt(discordance) + z_power * math.sqrt(discordance - difference**2)
    return math.ceil((root / difference) ** 2)


def estimate_discordance(first_accuracy: float, second_accuracy: float) -> float:
    """Return the share of reviews that just one of two models has right, were their mistakes independent.

    Models mostly stumble over the same reviews, so that the true share is lower and fewer reviews are needed.
    """
    return first_accuracy * (1 - second_accuracy) + second_accuracy * (1 - first_accuracy)


def check_shares(difference: float, discordance: float, power: float, level: float) -> None:
    """Refuse shares for which there is no answer.

    Raises:
        ConfigError: naming the share.
    """
    if not 0 < difference < 1:
        raise ConfigError(f"The difference is {difference:g}", expected="a share above 0 and below 1, such as 0.03")
    if not difference <= discordance <= 1:
        raise ConfigError(
            f"The discordance is {discordance:g}",
            expected=f"a share from the difference ({difference:g}) to 1: what differs was changed",
        )
    if not 0 < power < 1 or not 0 < level < 1:
        raise ConfigError(f"Power {power:g} and level {level:g}", expected="shares above 0 and below 1")
