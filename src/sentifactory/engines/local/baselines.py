"""Baselines: the majority label, TF-IDF with logistic regression, and snownlp."""

from __future__ import annotations

import pickle
import time
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Self

from sentifactory.corpus.inspection.tfidf_pipeline import build_tfidf_pipeline
from sentifactory.engines.base import ClosingEngine, OnAnswer, report_answers
from sentifactory.errors import ConfigError, DataError, EngineError
from sentifactory.records import Prediction, Review
from sentifactory.system.progress import say
from sentifactory.task.label_names import build_label_index
from sentifactory.task.task import Task


class TfidfEngine(ClosingEngine):
    """TF-IDF over character 1- to 3-grams with logistic regression.

    Args:
        task: with the labels.
        name: of the model in reports.
        seed: of the regression.
        pipeline: a trained `build_tfidf_pipeline`; None: `fit` trains one.

    Attributes:
        pipeline: the trained vectoriser and regression; None before `fit`.
        train_s: seconds that the last `fit` took.
    """

    def __init__(self, task: Task, *, name: str = "tfidf", seed: int = 0, pipeline: Any = None) -> None:
        self.name = name
        self._task = task
        self._seed = seed
        self.pipeline = pipeline
        self.train_s = 0.0

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
                code="labels-too-few",
            )
        # This imports scikit-learn, which is no part of training.
        self.pipeline = build_tfidf_pipeline(n_reviews=len(known), n_labels=len(set(labels)), seed=self._seed)
        start = time.monotonic()
        self.pipeline.fit([review.text for review in known], labels)
        self.train_s = time.monotonic() - start
        say(f"{self.name}: trained on {len(known)} reviews in {self.train_s:.1f} s")
        return self

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        """Return the most probable label of each review, with the probabilities of all labels.

        Raises:
            EngineError: when `fit` has not been called.
        """
        if self.pipeline is None:
            raise EngineError(
                "TF-IDF has not been trained",
                where=self.name,
                next_step="call fit with reviews first",
                code="engine-untrained",
            )
        if not reviews:
            return []
        start = time.monotonic()
        shares = self.pipeline.predict_proba([review.text for review in reviews])  # (n, labels seen in training)
        latency_s = (time.monotonic() - start) / len(reviews)
        columns = {int(label): column for column, label in enumerate(self.pipeline.classes_)}
        predictions = []
        for row in shares:
            # Labels that did not occur in training have no column.
            whole = tuple(
                float(row[columns[label]]) if label in columns else 0.0 for label in range(len(self._task.labels))
            )
            predictions.append(Prediction(whole.index(max(whole)), probabilities=whole, latency_s=latency_s))
        return report_answers(predictions, on_answer)

    @property
    def size_bytes(self) -> int:
        """Size of the trained model, as pickle would write it."""
        return len(pickle.dumps(self))


class MajorityEngine(ClosingEngine):
    """Predicts the most frequent label of the given reviews for every review."""

    name = "majority"

    def __init__(self, reviews: Sequence[Review]) -> None:
        counts = Counter(review.label for review in reviews if review.label is not None)
        # Ties go to the lower index, independent of the order of rows.
        self.label = min(counts, key=lambda label: (-counts[label], label))

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        """Return the same answer for every review."""
        return report_answers([Prediction(self.label) for _ in reviews], on_answer)


class SnownlpEngine(ClosingEngine):
    """Uses `SnowNLP(text).sentiments`, the probability of a positive review.

    Raises:
        ConfigError: when the package is not installed, or the task's labels are not negative and positive.
    """

    name = "snownlp"

    def __init__(self, task: Task) -> None:
        if find_spec("snownlp") is None:
            raise ConfigError(
                "The package snownlp is not installed", next_step="pip install snownlp==0.12.3", code="package-needed"
            )
        index = build_label_index(task)
        if len(task.labels) != 2 or not {"negative", "positive"} <= set(index):
            raise ConfigError(
                f"snownlp supports the labels negative and positive only, not {', '.join(task.labels)}",
                where=task.name,
                code="model-labels",
            )
        self._positive = index["positive"]

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        """Return the more probable label of each review, with both probabilities."""
        from snownlp import SnowNLP

        predictions = []
        for position, review in enumerate(reviews):
            start = time.monotonic()
            share = float(SnowNLP(review.text).sentiments)
            shares = (1 - share, share) if self._positive == 1 else (share, 1 - share)
            prediction = Prediction(shares.index(max(shares)), shares, latency_s=time.monotonic() - start)
            predictions.append(prediction)
            if on_answer is not None:
                on_answer(position, prediction)
        return predictions
