"""An engine in a process of its own: answers and times come back, and so does the news that it has died."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from functools import partial

import pytest

from sentifactory.engines.base import ClosingEngine, OnAnswer
from sentifactory.engines.engine_process import EngineProcess
from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review


class Counting(ClosingEngine):
    """Answers with the length of the text; dies of a certain one."""

    def __init__(self, name: str = "counting", is_broken: bool = False) -> None:
        if is_broken:
            raise EngineError("It is broken", where=name)
        self.name = name
        self.ballast = bytearray(os.urandom(1)) * (64 * 2**20)

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        if any(review.text == "die" for review in reviews):
            os.kill(os.getpid(), signal.SIGKILL)
        return [Prediction(len(review.text), raw=str(len(reviews))) for review in reviews]


def test_answers_times_memory_and_death() -> None:
    hand = [Review("a"), Review("bb"), Review("ccc")]
    with EngineProcess(Counting, "counting") as process:
        together, seconds = process.predict(hand)
        alone, each = process.predict_singly(hand)
        assert [(one.label, one.raw) for one in together] == [(1, "3"), (2, "3"), (3, "3")]
        assert [(one.label, one.raw) for one in alone] == [(1, "1"), (2, "1"), (3, "1")]
        assert seconds > 0
        assert len(each) == 3
        assert (process.read_peak_bytes() or 0) > 64 * 2**20
        with pytest.raises(EngineError, match=r"The engine's process has ended"):
            process.predict([Review("die")])


def test_an_engine_that_does_not_start_says_why() -> None:
    with pytest.raises(EngineError, match="It is broken"), EngineProcess(partial(Counting, is_broken=True), "broken"):
        pass
