"""The sentiment classifier that the package snownlp brings along: naive Bayes over words, ready to use."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.util import find_spec

from sentifactory.corpus.labels import build_label_index
from sentifactory.engines.base import ClosingEngine, OnAnswer
from sentifactory.errors import ConfigError
from sentifactory.records import Prediction, Review
from sentifactory.task import Task


class SnownlpEngine(ClosingEngine):
    """Asks snownlp as its users do: `SnowNLP(text).sentiments` is the probability of a positive review.

    Raises:
        ConfigError: when the package is not installed, or the task is not about negative and positive.
    """

    name = "snownlp"

    def __init__(self, task: Task) -> None:
        if find_spec("snownlp") is None:
            raise ConfigError("The package snownlp is not installed", next_step="pip install snownlp==0.12.3")
        index = build_label_index(task)
        if len(task.labels) != 2 or not {"negative", "positive"} <= set(index):
            raise ConfigError(
                f"snownlp knows negative and positive, and not {', '.join(task.labels)}", where=task.name
            )
        self._positive = index["positive"]

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        """Return the likelier label of each review with both probabilities."""
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
