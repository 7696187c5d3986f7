"""An engine without a model, for measuring and testing all that stands around one."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence

from sentifactory.engines.base import ClosingEngine, OnAnswer, tell_answers
from sentifactory.records import Prediction, Review
from sentifactory.task import Task

_STEPS = 1000


class ScriptedEngine(ClosingEngine):
    """Answers after a given time; which label is decided by a checksum of the text, the same in every process.

    Args:
        task: says how many labels there are.
        batch_s: seconds that a batch takes, whatever its size.
        text_s: seconds that each of its texts takes on top.
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
        return tell_answers([script_answer(review.text, self._labels) for review in reviews], on_answer)


def script_answer(text: str, n_labels: int) -> Prediction:
    """Return the answer that a checksum of the text decides, with probabilities that sum to 1.

    Example:
        >>> script_answer("很好", 2) == script_answer("很好", 2)
        True
    """
    number = zlib.crc32(text.encode())
    label = number % n_labels
    share = 1 / n_labels + (1 - 1 / n_labels) * (number // n_labels % _STEPS + 1) / (_STEPS + 1)
    rest = (1 - share) / max(1, n_labels - 1)
    return Prediction(label, tuple(share if one == label else rest for one in range(n_labels)))
