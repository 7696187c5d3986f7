"""The cheap baseline that every language model has to beat: TF-IDF over characters with logistic regression."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Self

from sentifactory.corpus.tfidf import build_tfidf_pipeline
from sentifactory.engines.base import ClosingEngine, OnAnswer, tell_answers
from sentifactory.errors import DataError, EngineError
from sentifactory.progress import say
from sentifactory.records import Prediction, Review
from sentifactory.task import Task


class TfidfEngine(ClosingEngine):
    """TF-IDF over groups of 1 to 3 characters, and logistic regression with probabilities.

    Args:
        task: says how many labels there are.
        name: what the model is called in reports.
        seed: seed of the regression.
    """

    def __init__(self, task: Task, *, name: str = "tfidf", seed: int = 0) -> None:
        self.name = name
        self._task = task
        self._seed = seed
        self._pipeline: Any = None

    def fit(self, reviews: Sequence[Review]) -> Self:
        """Train on the reviews that have a label, and return the engine.

        Raises:
            DataError: when fewer than two labels occur.
        """
        known = [review for review in reviews if review.label is not None]
        labels = [review.label for review in known]
        if len(set(labels)) < 2:
            source = reviews[0].source if reviews else None
            raise DataError(
                f"The {len(known)} labelled training reviews do not have two different labels",
                where=source.file if source else "TF-IDF",
                expected=f"reviews of {' and '.join(self._task.labels)}",
                next_step="train on a file with reviews of every label",
            )
        start = time.monotonic()
        self._pipeline = build_tfidf_pipeline(n_reviews=len(known), n_labels=len(set(labels)), seed=self._seed)
        self._pipeline.fit([review.text for review in known], labels)
        say(f"{self.name}: trained on {len(known)} reviews in {time.monotonic() - start:.1f} s")
        return self

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        """Return the most probable label of each review, with the probabilities of all labels.

        Raises:
            EngineError: when `fit` has not been called.
        """
        if self._pipeline is None:
            raise EngineError("TF-IDF has not been trained", where=self.name, next_step="call fit with reviews first")
        if not reviews:
            return []
        start = time.monotonic()
        shares = self._pipeline.predict_proba([review.text for review in reviews])  # (n, labels seen in training)
        latency_s = (time.monotonic() - start) / len(reviews)
        columns = {int(label): column for column, label in enumerate(self._pipeline.classes_)}
        predictions = []
        for row in shares:
            # A label that training never saw has no column of its own.
            whole = tuple(
                float(row[columns[label]]) if label in columns else 0.0 for label in range(len(self._task.labels))
            )
            predictions.append(Prediction(whole.index(max(whole)), probabilities=whole, latency_s=latency_s))
        return tell_answers(predictions, on_answer)
