"""An engine without a model, for measuring and testing everything around an engine."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence

from sentifactory.engines.base import ClosingEngine, OnAnswer, report_answers
from sentifactory.records import Prediction, Review
from sentifactory.task.task import Task

_STEPS = 1000


class ScriptedEngine(ClosingEngine):
    """Answers after a given time, with a label from a checksum of the text, which is the same in every process.

    Args:
        task: determines the number of labels.
        batch_s: seconds per batch, independent of its size.
        text_s: additional seconds per text.
    """

    name = "scripted"

    def __init__(self, task: Task, *, batch_s: float = 0.0, text_s: float = 0.0) -> None:
        self._labels = len(task.labels)
        self._batch_s = batch_s
        self._text_s = text_s

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        """Return one prediction per review, in the order of the reviews."""
        if wait_s := self._batch_s + len(reviews) * self._text_s:
            time.sleep(wait_s)
        return report_answers([script_answer(review.text, self._labels) for review in reviews], on_answer)


def script_answer(text: str, n_labels: int) -> Prediction:
    """Return the answer derived from a checksum of the text, with probabilities that sum to 1.

    Example:
        >>> script_answer("很好", 2) == script_answer("很好", 2)
        True
    """
    number = zlib.crc32(text.encode())
    label = number % n_labels
    share = 1 / n_labels + (1 - 1 / n_labels) * (number // n_labels % _STEPS + 1) / (_STEPS + 1)
    rest = (1 - share) / max(1, n_labels - 1)
    return Prediction(label, tuple(share if one == label else rest for one in range(n_labels)))
