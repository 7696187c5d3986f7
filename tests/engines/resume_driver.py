"""Stands for a comparison that is killed: asks a slow engine, and writes down each review that the engine is asked.

Usage: resume_driver.py FOLDER NUMBER_OF_REVIEWS
"""

import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sentifactory.engines.ask import Answers, collect_answers
from sentifactory.engines.base import ClosingEngine, OnAnswer
from sentifactory.records import Prediction, Review

REVIEWS = [Review(f"第{number}家很好\n“{number}”") for number in range(40)]


def answer(number: int) -> Prediction:
    """Say what the slow engine says to a review."""
    shares = (0.1 + number / 100, 0.9 - number / 100)
    return Prediction(number % 2 if number % 5 else None, shares, "\ud800好", 0.5, (-0.5, -1.0))


class SlowEngine(ClosingEngine):
    """Answers one after the other, in an order of its own."""

    name = "slow"

    def __init__(self, asked: Path, pause_s: float) -> None:
        self._asked = asked
        self._pause_s = pause_s

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        answers = {}
        order = list(range(len(reviews)))
        random.Random(len(reviews)).shuffle(order)
        for position in order:
            with self._asked.open("a") as stream:
                stream.write(f"{reviews[position].text!r}\n")
            time.sleep(self._pause_s)
            answers[position] = answer(REVIEWS.index(reviews[position]))
            if on_answer is not None:
                on_answer(position, answers[position])
        return [answers[position] for position in range(len(reviews))]


def answer_all(folder: Path, pause_s: float = 0.0, fingerprint: str = "one") -> Answers:
    """Ask the slow engine for whatever is missing."""
    engine = SlowEngine(folder / "asked.txt", pause_s)
    return collect_answers(lambda: engine, REVIEWS, folder / "report.predictions.base.jsonl", fingerprint)


if __name__ == "__main__":
    print("begins", flush=True)
    answer_all(Path(sys.argv[1]), float(sys.argv[2]))
