"""Splits a difference of accuracies into format (giving a readable answer at all) and sentiment (the right one).

Both models answer a review readably, or one, or none. What the second model gains on reviews that both answered is
sentiment; what it gains on reviews that only it answered is format. The parts sum exactly to the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sentifactory.metrics.significance import PairedTest, compare_paired


@dataclass(frozen=True, slots=True)
class Decomposition:
    """A difference of accuracies in its parts, as shares of all reviews.

    Attributes:
        difference: accuracy of the second model minus that of the first.
        from_format: the part from reviews that only one of them answered readably.
        from_sentiment: the part from reviews that both answered readably.
        both_parsed: number of reviews that both answered readably.
        only_first_parsed: number that only the first did.
        only_second_parsed: number that only the second did.
        none_parsed: number that neither did.
        first_accuracy: accuracy of the first on the reviews that both answered; None where there are none.
        second_accuracy: likewise of the second.
        test: the paired test on those reviews alone.
    """

    difference: float
    from_format: float
    from_sentiment: float
    both_parsed: int
    only_first_parsed: int
    only_second_parsed: int
    none_parsed: int
    first_accuracy: float | None
    second_accuracy: float | None
    test: PairedTest | None

    def to_dict(self) -> dict[str, Any]:
        """Return the parts as plain JSON values."""
        return {**asdict(self), "test": self.test.to_dict() if self.test else None}


def decompose_difference(
    truth: Sequence[int], first: Sequence[int | None], second: Sequence[int | None]
) -> Decomposition:
    """Return the parts of a difference.

    Args:
        truth: (n_reviews,) true labels.
        first: (n_reviews,) answers of the first model, None where unparsed.
        second: (n_reviews,) answers of the second model.

    Example:
        >>> parts = decompose_difference([1, 1, 0, 0], [None, 0, 0, None], [1, 1, 0, 1])
        >>> parts.difference, parts.from_format, parts.from_sentiment
        (0.5, 0.25, 0.25)
    """
    rows = list(zip(truth, first, second, strict=True))
    both = [(a == true, b == true) for true, a, b in rows if a is not None and b is not None]
    only_first = [a == true for true, a, b in rows if a is not None and b is None]
    only_second = [b == true for true, a, b in rows if a is None and b is not None]
    was_right, is_right = [a for a, _ in both], [b for _, b in both]
    n = len(rows)
    from_format = (sum(only_second) - sum(only_first)) / n
    from_sentiment = (sum(is_right) - sum(was_right)) / n
    return Decomposition(
        difference=(sum(b == true for true, _, b in rows) - sum(a == true for true, a, _ in rows)) / n,
        from_format=from_format,
        from_sentiment=from_sentiment,
        both_parsed=len(both),
        only_first_parsed=len(only_first),
        only_second_parsed=len(only_second),
        none_parsed=n - len(both) - len(only_first) - len(only_second),
        first_accuracy=sum(was_right) / len(both) if both else None,
        second_accuracy=sum(is_right) / len(both) if both else None,
        test=compare_paired(was_right, is_right) if both else None,
    )
