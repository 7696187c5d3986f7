"""What every engine promises, and how a reply becomes a Prediction.

Covered now: mode `generate` (greedy free text, parsed strictly by the task). The modes `constrain` and `score` will
fill `Prediction.probabilities` through the same Protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from sentifactory.records import Prediction, Review
from sentifactory.task import Task

# The answer has 8 tokens; an untuned model rambles on, and its words after the answer are not worth their time.
MAX_NEW_TOKENS = 16


class Engine(Protocol):
    """Answers reviews. Use it in a `with` block: an engine may own a process or a model in memory.

    Attributes:
        name: what the model is called in progress lines and reports, such as "base".
    """

    name: str

    def predict(self, reviews: Sequence[Review]) -> list[Prediction]:
        """Return one prediction per review, in the order of the reviews.

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


def make_prediction(task: Task, reply: str, latency_s: float) -> Prediction:
    """Return what a reply says, by the task's strict parser; a reply that says nothing clear has the label None."""
    return Prediction(label=task.parse_answer(reply), raw=reply, latency_s=latency_s)


def make_predictions(task: Task, replies: Sequence[str], latencies_s: Sequence[float]) -> list[Prediction]:
    """Return a prediction for each reply, in the same order.

    Args:
        task: knows what counts as an answer.
        replies: (n,) the words of the model, unchanged.
        latencies_s: (n,) seconds from sending each review to having its reply.

    Raises:
        ValueError: when the two lists differ in length.
    """
    return [make_prediction(task, reply, latency) for reply, latency in zip(replies, latencies_s, strict=True)]
