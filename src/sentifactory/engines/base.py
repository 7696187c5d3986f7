"""What every engine promises, and how a reply becomes a Prediction.

A language model is asked in one of three modes:
- `generate`: it writes what it likes, greedily; the task parses the reply strictly.
- `constrain`: greedily as well, but only the answers of the task can be written.
- `score`: it writes nothing; the probability of each label's words is read off, and the likeliest label is the answer.

`constrain` decides where the answers part, token by token; `score` weighs whole words. Where the answers differ in one
token, as in the default task, both name the same label, short of a tie within rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Literal, Protocol, Self

from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review
from sentifactory.task import Task

# The answer has 8 tokens; an untuned model rambles on, and its words after the answer are not worth their time.
MAX_NEW_TOKENS = 16

Mode = Literal["generate", "constrain", "score"]
MODES: tuple[Mode, ...] = ("generate", "constrain", "score")

# Told each answer as it comes: the position of its review, and the prediction.
OnAnswer = Callable[[int, Prediction], None]


class ServerGoneError(EngineError):
    """A server of our own has ended or answers no more; another one may be started."""


class Engine(Protocol):
    """Answers reviews. Use it in a `with` block: an engine may own a process or a model in memory.

    Attributes:
        name: what the model is called in progress lines and reports, such as "base".
    """

    name: str

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        """Return one prediction per review, in the order of the reviews.

        Args:
            reviews: what to ask about.
            on_answer: told each answer as soon as it is there, in any order, but from one thread at a time.

        Raises:
            EngineError: when the model does not answer.
        """
        ...

    def close(self) -> None:
        """Give back what the engine holds; may be called twice."""
        ...

    def __enter__(self) -> Self:
        """Make the engine ready and return it."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the engine."""
        ...


class ClosingEngine:
    """The context-manager half of an engine: leaving the `with` block closes it, whatever happened inside."""

    def close(self) -> None:
        """Give back what the engine holds; here: nothing."""

    def __enter__(self) -> Self:
        """Return the engine."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the engine."""
        self.close()


def tell_answers(predictions: list[Prediction], on_answer: OnAnswer | None) -> list[Prediction]:
    """Tell answers that came all at once, in their order, and return them."""
    if on_answer is not None:
        for position, prediction in enumerate(predictions):
            on_answer(position, prediction)
    return predictions


def classify(shares: Sequence[float], latency_s: float = 0.0) -> Prediction:
    """Return the likeliest label by a classifier's probabilities; no answer where these are no numbers.

    Example:
        >>> classify([0.25, 0.75]).label, classify([math.nan, math.nan]).label
        (1, None)
    """
    if not all(map(math.isfinite, shares)):
        return Prediction(None, latency_s=latency_s)
    return Prediction(shares.index(max(shares)), probabilities=tuple(shares), latency_s=latency_s)


def make_prediction(task: Task, reply: str, latency_s: float) -> Prediction:
    """Return what a reply says, by the task's strict parser; a reply that says nothing clear has the label None."""
    return Prediction(label=task.parse_answer(reply), raw=reply, latency_s=latency_s)
