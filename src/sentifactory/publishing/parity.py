"""The gate between a model and another form of it: on the same validation reviews both must say the same.

Both are asked for the probability of every label. Compared are the answers and the probabilities, review by review;
agreement in accuracy alone would let two models pass that are wrong about different reviews.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review

if TYPE_CHECKING:
    from sentifactory.engines.base import Engine


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far two forms of a model may differ.

    Attributes:
        changed_share: most answers that may change, as a share of the reviews.
        mean_change: largest mean change of a label's probability.
        max_change: largest change of a single one.
    """

    changed_share: float
    mean_change: float
    max_change: float


# Merged in float32 the same sums are made in another order; a 16-bit number keeps 8 (bfloat16) or 11 (float16) bits.
TOLERANCES = {
    "float32": Tolerance(0.0, 1e-4, 1e-3),
    "float16": Tolerance(0.01, 0.005, 0.05),
    "bfloat16": Tolerance(0.02, 0.02, 0.2),
}


@dataclass(frozen=True, slots=True)
class Parity:
    """How two forms of a model differ on the same reviews.

    Attributes:
        reviews: how many were asked.
        changed_labels: answers that differ.
        mean_change: mean absolute difference of a label's probability.
        max_change: the largest one.
        accuracy_before: share of right answers of the first form.
        accuracy_after: of the second.
    """

    reviews: int
    changed_labels: int
    mean_change: float
    max_change: float
    accuracy_before: float
    accuracy_after: float

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        return asdict(self)

    def passes(self, tolerance: Tolerance) -> bool:
        """Return whether the two forms differ by no more than is allowed."""
        return (
            self.changed_labels <= tolerance.changed_share * self.reviews
            and self.mean_change <= tolerance.mean_change
            and self.max_change <= tolerance.max_change
        )


def compare_predictions(
    reviews: Sequence[Review], before: Sequence[Prediction], after: Sequence[Prediction]
) -> Parity:
    """Return how two forms of a model differ.

    Args:
        reviews: (n,) at least one, with labels.
        before: (n,) predictions with probabilities of the first form.
        after: (n,) of the second.

    Raises:
        EngineError: when a prediction has no probabilities, or they are not numbers.

    Example:
        >>> one, two = Prediction(1, (0.2, 0.8)), Prediction(0, (0.6, 0.4))
        >>> found = compare_predictions([Review("", 1)], [one], [two])
        >>> found.changed_labels, round(found.max_change, 3)
        (1, 0.4)
    """
    changes: list[float] = []
    for first, second in zip(before, after, strict=True):
        if first.probabilities is None or second.probabilities is None:
            raise EngineError("A model gave no probabilities", expected="the probability of every label")
        changes += [abs(a - b) for a, b in zip(first.probabilities, second.probabilities, strict=True)]
    if any(change != change for change in changes):
        raise EngineError("A model gave probabilities that are no numbers", next_step="take a wider dtype")

    def rate(answers: Sequence[Prediction]) -> float:
        return sum(answer.label == review.label for answer, review in zip(answers, reviews, strict=True)) / len(
            reviews
        )

    return Parity(
        reviews=len(reviews),
        changed_labels=sum(a.label != b.label for a, b in zip(before, after, strict=True)),
        mean_change=sum(changes) / len(changes),
        max_change=max(changes),
        accuracy_before=rate(before),
        accuracy_after=rate(after),
    )


def ask_once(engine: AbstractContextManager[Engine], reviews: Sequence[Review]) -> list[Prediction]:
    """Return an engine's predictions, and end it; its memory is free before the next one starts."""
    with engine as running:
        return running.predict(reviews)
