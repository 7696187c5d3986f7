"""An engine in a process of its own, so that its memory is its own and several can be timed in turns.

Times are taken inside the process: sending reviews and answers there and back is not counted.
"""

from __future__ import annotations

import io
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, redirect_stderr
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sentifactory.errors import EngineError, SentiFactoryError
from sentifactory.proc_tables import read_peak_rss
from sentifactory.records import Prediction, Review
from sentifactory.supervisor import PR_SET_PDEATHSIG, call_prctl

if TYPE_CHECKING:
    from sentifactory.engines.base import Engine

_END_S = 10.0


class EngineProcess:
    """Use it in a `with` block, which starts the process and ends it.

    Args:
        open_engine: starts the engine; it is sent to the process, so it must be one that pickle can write, such as a
            `functools.partial` of an engine's class.
        name: what the engine is called in errors.

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
        self._theirs.close()  # so that a process that ends is seen as the end of the pipe
        try:
            self._receive()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the process."""
        self._end()

    def predict(self, reviews: Sequence[Review]) -> tuple[list[Prediction], float]:
        """Return the answers to reviews that are given all at once, and the seconds that they took.

        Raises:
            EngineError: when the engine fails or its process has died.
        """
        predictions, seconds = self._ask([list(reviews)])
        return predictions, seconds[0]

    def predict_singly(self, reviews: Sequence[Review]) -> tuple[list[Prediction], list[float]]:
        """Return the answers to reviews that are given one after the other, and the seconds of each.

        Raises:
            EngineError: as `predict` does.
        """
        return self._ask([[review] for review in reviews])

    def read_peak_bytes(self) -> int | None:
        """Return the most memory that the process has held so far; None where the system does not tell."""
        return read_peak_rss(self._process.pid or 0) or None

    def _ask(self, hands: list[list[Review]]) -> tuple[list[Prediction], list[float]]:
        try:
            self._ours.send(hands)
        except OSError as error:
            raise self._tell_death() from error
        predictions, seconds = self._receive()
        return predictions, seconds

    def _receive(self) -> Any:
        try:
            reply = self._ours.recv()
        except (EOFError, OSError) as error:
            raise self._tell_death() from error
        if isinstance(reply, SentiFactoryError):
            raise reply
        return reply

    def _tell_death(self) -> EngineError:
        return EngineError(
            "The process of the engine has ended", where=self._name, next_step="see whether the memory suffices"
        )

    def _end(self) -> None:
        self._ours.close()  # the process ends when it has nothing more to read
        self._process.join(_END_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def serve_engine(pipe: Any, open_engine: Callable[[], AbstractContextManager[Engine]]) -> None:
    """Answer what comes through the pipe until it is closed; runs in the process of the engine."""
    call_prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the one who asks, and that one closes the pipe
    with redirect_stderr(io.StringIO()):
        try:
            with open_engine() as engine:
                pipe.send(None)
                while True:
                    pipe.send(time_hands(engine, pipe.recv()))
        except (EOFError, OSError):
            return
        except SentiFactoryError as error:
            pipe.send(error)


def time_hands(engine: Engine, hands: Sequence[list[Review]]) -> tuple[list[Prediction], list[float]]:
    """Return the answers to all reviews, hand after hand, and the seconds that each hand took."""
    predictions, seconds = [], []
    for hand in hands:
        start = time.perf_counter()
        predictions += engine.predict(hand)
        seconds.append(time.perf_counter() - start)
    return predictions, seconds
