"""The cheap contenders: the commonest label, and TF-IDF over characters with logistic regression.

They answer through the engine interface, so that they stand in the same tables as the language models.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from sentifactory.engines.base import ClosingEngine
from sentifactory.errors import DataError
from sentifactory.progress import say
from sentifactory.records import Prediction, Review
from sentifactory.task import Task


class MajorityEngine(ClosingEngine):
    """Answers every review with the commonest label of the reviews it was given."""

    name = "majority"

    def __init__(self, reviews: Sequence[Review]) -> None:
        counts = Counter(review.label for review in reviews if review.label is not None)
        # Ties go to the lower index, so that the result does not depend on the order of rows.
        self.label = min(counts, key=lambda label: (-counts[label], label))

    def predict(self, reviews: Sequence[Review]) -> list[Prediction]:
        """Return the same answer for every review."""
        return [Prediction(self.label) for _ in reviews]


class TfidfEngine(ClosingEngine):
    """TF-IDF over 1 to 3 characters with logistic regression, fitted when it is made.

    Raises:
        DataError: when the training reviews have one label only.
    """

    name = "tfidf"

    def __init__(self, train: Sequence[Review], task: Task, seed: int = 0) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        labels = [review.label for review in train if review.label is not None]
        if len(set(labels)) < 2:
            raise DataError(
                "TF-IDF cannot be trained: all training reviews have the same label",
                where=train[0].source.file if train and train[0].source else "",
                expected="reviews of every label",
            )
        started = time.monotonic()
        self._n_labels = len(task.labels)
        self._pipeline = make_pipeline(
            TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True),
            LogisticRegression(max_iter=1000, random_state=seed),
        )
        self._pipeline.fit([review.text for review in train], labels)
        say(f"tfidf: trained on {len(train)} reviews in {time.monotonic() - started:.1f} s")

    def predict(self, reviews: Sequence[Review]) -> list[Prediction]:
        """Return the most probable label of each review, with the probabilities of all labels."""
        started = time.monotonic()
        rows = self._pipeline.predict_proba([review.text for review in reviews])
        latency_s = (time.monotonic() - started) / max(len(reviews), 1)
        predictions = []
        for row in rows:
            shares = [0.0] * self._n_labels  # a label that training never saw has no column of its own
            for label, share in zip(self._pipeline.classes_, row, strict=True):
                shares[int(label)] = float(share)
            predictions.append(Prediction(shares.index(max(shares)), tuple(shares), latency_s=latency_s))
        return predictions
