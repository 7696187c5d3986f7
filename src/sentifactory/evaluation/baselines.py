"""The cheapest contender: it reads nothing, and every model must beat it. TF-IDF stands in `engines.tfidf`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sentifactory.engines.base import ClosingEngine, OnAnswer, tell_answers
from sentifactory.records import Prediction, Review


class MajorityEngine(ClosingEngine):
    """Answers every review with the commonest label of the reviews it was given."""

    name = "majority"

    def __init__(self, reviews: Sequence[Review]) -> None:
        counts = Counter(review.label for review in reviews if review.label is not None)
        # Ties go to the lower index, so that the result does not depend on the order of rows.
        self.label = min(counts, key=lambda label: (-counts[label], label))

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        """Return the same answer for every review."""
        return tell_answers([Prediction(self.label) for _ in reviews], on_answer)
