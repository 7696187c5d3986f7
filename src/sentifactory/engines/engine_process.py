"""Runs an engine in a separate process, to measure its memory and to time several engines in turns.

Times are measured inside the process, without the transfer of reviews and answers.
"""

from __future__ import annotations

import io
import multiprocessing
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, redirect_stderr
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sentifactory.errors import SentiFactoryError
from sentifactory.records import Prediction, Review
from sentifactory.system.hardware import read_peak_rss
from sentifactory.system.own_process import describe_exit, end_process, end_with_parent

if TYPE_CHECKING:
    from sentifactory.engines.base import Engine


class EngineProcess:
    """An engine in a separate process, which starts and ends with the `with` block.

    Args:
        open_engine: starts the engine; must be picklable, such as a `functools.partial` of an engine's class.
        name: of the engine in error messages.

    Raises:
        EngineError: on entering the block, when the engine does not start.
    """

    def __init__(self, open_engine: Callable[[], AbstractContextManager[Engine]], name: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._name = name
        self._ours, self._theirs = context.Pipe()
        self._process = context.Process(target=serve_engine, args=(self._theirs, open_engine), daemon=True)

    def __enter__(self) -> Self:
        """Start the process and wait until the engine is ready."""
        self._process.start()
        self._theirs.close()  # so that the pipe ends when the process does
        try:
            self._receive()
        except BaseException:
            end_process(self._process, self._ours)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the process."""
        end_process(self._process, self._ours)

    def predict(self, reviews: Sequence[Review]) -> tuple[list[Prediction], float]:
        """Return the answers to reviews sent all at once, and the seconds they took.

        Raises:
            EngineError: when the engine fails or its process has died.
        """
        predictions, seconds = self._ask([list(reviews)])
        return predictions, seconds[0]

    def predict_singly(self, reviews: Sequence[Review]) -> tuple[list[Prediction], list[float]]:
        """Return the answers to reviews sent one after the other, and the seconds each took.

        Raises:
            EngineError: as `predict` does.
        """
        return self._ask([[review] for review in reviews])

    def read_peak_bytes(self) -> int | None:
        """Return the process's peak memory so far; None if unknown."""
        return read_peak_rss(self._process.pid or 0) or None

    def _ask(self, batches: list[list[Review]]) -> tuple[list[Prediction], list[float]]:
        try:
            self._ours.send(batches)
        except OSError as error:
            raise describe_exit(self._name) from error
        predictions, seconds = self._receive()
        return predictions, seconds

    def _receive(self) -> Any:
        try:
            reply = self._ours.recv()
        except (EOFError, OSError) as error:
            raise describe_exit(self._name) from error
        if isinstance(reply, SentiFactoryError):
            raise reply
        return reply


def serve_engine(pipe: Any, open_engine: Callable[[], AbstractContextManager[Engine]]) -> None:
    """Answer requests from the pipe until it is closed; runs in the engine's process."""
    end_with_parent()
    with redirect_stderr(io.StringIO()):
        try:
            with open_engine() as engine:
                pipe.send(None)
                while True:
                    pipe.send(time_batches(engine, pipe.recv()))
        except (EOFError, OSError):
            return
        except SentiFactoryError as error:
            pipe.send(error)


def time_batches(engine: Engine, batches: Sequence[list[Review]]) -> tuple[list[Prediction], list[float]]:
    """Return the answers to all reviews, batch by batch, and the seconds that each batch took."""
    predictions, seconds = [], []
    for batch in batches:
        start = time.perf_counter()
        predictions += engine.predict(batch)
        seconds.append(time.perf_counter() - start)
    return predictions, seconds
