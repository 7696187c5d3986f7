"""Who takes part in a comparison, and what each answered: one engine after the other, each closed before the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sentifactory.errors import EngineError
from sentifactory.evaluation.metrics import Metrics, compute_metrics
from sentifactory.progress import say
from sentifactory.records import Prediction, Review
from sentifactory.task import Task

if TYPE_CHECKING:
    from sentifactory.engines.base import Engine

# In the order in which tables and pictures show them.
CONTENDER_NAMES = ("majority", "base", "tuned", "tfidf")


@dataclass(frozen=True, slots=True)
class Contender:
    """One that is to be asked.

    Attributes:
        name: `base`, `tuned`, `tfidf` or `majority`.
        model: its folder, its name at an address, or what it is made from.
        engine: the kind of engine that runs it, such as `vllm`.
        open_engine: starts its engine; the context manager ends it.
        facts: what else the report says about it (its run card, its weights).
    """

    name: str
    model: str
    engine: str
    open_engine: Callable[[], AbstractContextManager[Engine]]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one contender answered.

    Attributes:
        contender: who it was.
        predictions: (n_reviews,) in the order of the reviews.
        metrics: the figures against the true labels.
        start_s: seconds until its engine was ready.
        predict_s: seconds for all answers.
    """

    contender: Contender
    predictions: tuple[Prediction, ...]
    metrics: Metrics
    start_s: float
    predict_s: float

    @property
    def name(self) -> str:
        """The contender's name."""
        return self.contender.name

    def is_right(self, reviews: Sequence[Review]) -> list[bool]:
        """Return for each review whether the answer is its true label."""
        return [prediction.label == review.label for prediction, review in zip(self.predictions, reviews, strict=True)]


def ask_contender(contender: Contender, reviews: Sequence[Review], task: Task) -> Outcome:
    """Start one engine, ask it all reviews and end it.

    Raises:
        EngineError: when it does not start, does not answer, or does not give one answer for each review.
    """
    say(f"{contender.name}: {contender.model}")
    started = time.monotonic()
    with contender.open_engine() as engine:
        ready = time.monotonic()
        predictions = engine.predict(reviews)
        done = time.monotonic()
    if len(predictions) != len(reviews):
        raise EngineError(
            f"The engine {contender.engine} gave {len(predictions)} answers to {len(reviews)} reviews",
            where=contender.model,
            expected="one answer for each review",
        )
    truth = [review.label for review in reviews if review.label is not None]
    metrics = compute_metrics(truth, [prediction.label for prediction in predictions], task.labels)
    return Outcome(contender, tuple(predictions), metrics, ready - started, done - ready)


def ask_contenders(contenders: Sequence[Contender], reviews: Sequence[Review], task: Task) -> dict[str, Outcome]:
    """Ask each contender in turn and return the outcomes by name, in the order of `CONTENDER_NAMES`.

    Raises:
        EngineError: when one of them fails; the comparison then has no result at all.
    """
    outcomes = {contender.name: ask_contender(contender, reviews, task) for contender in contenders}
    return {name: outcomes[name] for name in CONTENDER_NAMES if name in outcomes}
