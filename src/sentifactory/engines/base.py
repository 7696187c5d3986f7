"""The interface of all engines, and helpers that turn model output into predictions.

A language model is asked in one of three modes:
- `generate`: greedy decoding of free text; the task parses the reply strictly.
- `constrain`: greedy decoding constrained to the answers of the task.
- `score`: no text; the probability of each answer is computed, and the most probable label is the prediction.

`constrain` decides token by token, `score` compares whole answers. If the answers differ in one token, as in the
default task, both give the same label, except for ties within rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Literal, Protocol, Self

from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review
from sentifactory.system.progress import show_progress
from sentifactory.task.task import Task

MAX_TOKENS = 4096  # of prompt and answer, in every engine that we start; a longer review gets no answer
# The answer has 8 tokens; what an untuned model writes after it is not needed.
MAX_NEW_TOKENS = 16

Mode = Literal["generate", "constrain", "score"]
MODES: tuple[Mode, ...] = ("generate", "constrain", "score")

# Called for each answer as it arrives, with the position of its review and the prediction.
OnAnswer = Callable[[int, Prediction], None]


class ServerEndedError(EngineError):
    """A server that we started has ended or stopped answering; it may be restarted."""

    code = "server-ended"


class Engine(Protocol):
    """Classifies reviews. Use it in a `with` block: an engine may own a process or a model in memory.

    Attributes:
        name: of the model in progress lines and reports, such as "base".
    """

    name: str

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        """Return one prediction per review, in the order of the reviews.

        Args:
            reviews: to classify.
            on_answer: called for each answer as it arrives, in any order, but from one thread at a time.

        Raises:
            EngineError: when the model does not answer.
        """
        ...

    def close(self) -> None:
        """Release the engine's resources; may be called twice."""
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
    """Base class that closes the engine on leaving its `with` block."""

    def close(self) -> None:
        """Release the engine's resources; none by default."""

    def __enter__(self) -> Self:
        """Return the engine."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the engine."""
        self.close()


class WrappingEngine:
    """Base class of an engine that changes the answers of another one, which it opens and closes.

    Args:
        engine: the wrapped engine.
        name: of the model in progress lines and reports.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name

    def close(self) -> None:
        """Close the wrapped engine; may be called twice."""
        self.engine.close()

    def __enter__(self) -> Self:
        """Make the wrapped engine ready."""
        self.engine.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the wrapped engine."""
        self.engine.__exit__(kind, error, traceback)

    def change_answers(
        self,
        reviews: Sequence[Review],
        change: Callable[[int, Prediction], Prediction],
        on_answer: OnAnswer | None,
    ) -> list[Prediction]:
        """Return the changed answers of the wrapped engine, and tell each as it arrives; raises what it raises.

        Args:
            reviews: to classify.
            change: returns the new prediction for the review at a position.
            on_answer: as `Engine.predict` takes it.
        """

        def tell(position: int, prediction: Prediction) -> None:
            if on_answer is not None:
                on_answer(position, change(position, prediction))

        answers = self.engine.predict(reviews, tell)
        return [change(position, prediction) for position, prediction in enumerate(answers)]


def report_answers(predictions: list[Prediction], on_answer: OnAnswer | None) -> list[Prediction]:
    """Call `on_answer` for predictions that arrived all at once, and return them."""
    if on_answer is not None:
        for position, prediction in enumerate(predictions):
            on_answer(position, prediction)
    return predictions


def classify(shares: Sequence[float], latency_s: float = 0.0) -> Prediction:
    """Return a prediction from a classifier's probabilities; label None if one is NaN or infinite.

    Example:
        >>> classify([0.25, 0.75]).label, classify([math.nan, math.nan]).label
        (1, None)
    """
    if not all(map(math.isfinite, shares)):
        return Prediction(None, latency_s=latency_s)
    return Prediction(shares.index(max(shares)), probabilities=tuple(shares), latency_s=latency_s)


def make_prediction(task: Task, reply: str, latency_s: float) -> Prediction:
    """Return a prediction from a reply, parsed strictly by the task; label None if it cannot be parsed."""
    return Prediction(label=task.parse_answer(reply), raw=reply, latency_s=latency_s)


def split_by_length(prompts: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Yield positions in batches of similar length, the longest first, so that a lack of memory shows at once.

    Example:
        >>> list(split_by_length([[1], [1, 2, 3], [1, 2]], batch_size=2))
        [[1, 2], [0]]
    """
    order = sorted(range(len(prompts)), key=lambda position: (-len(prompts[position]), position))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def answer_batches(
    name: str,
    rows: Sequence[list[int]],
    batches: Iterable[list[int]],
    answer: Callable[[list[list[int]]], list[Prediction]],
    on_answer: OnAnswer | None,
) -> list[Prediction]:
    """Return the predictions for rows, in their order, with a progress display.

    Args:
        name: of the engine.
        rows: (n,) token ids.
        batches: positions of the rows in each batch; each position is in one batch.
        answer: returns the predictions for the rows of a batch.
        on_answer: called for each answer when its batch is done.
    """
    answers: dict[int, Prediction] = {}
    with show_progress(f"Asking {name}", total=len(rows), unit="reviews") as progress:
        for batch in batches:
            for position, prediction in zip(batch, answer([rows[at] for at in batch]), strict=True):
                answers[position] = prediction
                if on_answer is not None:
                    on_answer(position, prediction)
            progress.advance(len(batch))
    return [answers[position] for position in range(len(rows))]
