"""Dynamic batching for an engine in this process.

The engine runs in a thread of its own and takes at most `batch_items` reviews at once. A review waits at most
`batch_wait_s` for others. Reviews whose caller is gone are left out. When a batch fails, its reviews are predicted one
by one, so that a review on which the engine fails does not affect the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence

from sentifactory.engines.base import Engine
from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review
from sentifactory.serving.backends.backend import NotReadyError
from sentifactory.system.progress import hide_progress

CLOSE_WAIT_S = 10.0

Answer = Prediction | EngineError
_Job = tuple[list[Review], "asyncio.Future[list[Answer]]", asyncio.AbstractEventLoop]
_Asked = tuple[Review, "asyncio.Future[Prediction]"]


class EngineThread:
    """A daemon thread that runs an engine: the process can exit even when the engine hangs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    async def answer(self, reviews: list[Review]) -> list[Answer]:
        """Return an answer or an error for each review."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[list[Answer]] = loop.create_future()
        self._jobs.put((reviews, outcome, loop))
        return await outcome

    def is_alive(self) -> bool:
        """Return whether it can still answer."""
        return self._thread.is_alive()

    async def close(self) -> None:
        """Let the thread finish its batch and end; wait for it up to `CLOSE_WAIT_S`."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join, CLOSE_WAIT_S)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            reviews, outcome, loop = job
            answers = predict_safely(self._engine, reviews)
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(_settle, outcome, answers)


def _settle(outcome: asyncio.Future[list[Answer]], answers: list[Answer]) -> None:
    if not outcome.done():
        outcome.set_result(answers)


def predict_safely(engine: Engine, reviews: Sequence[Review]) -> list[Answer]:
    """Return an answer or an error for each review, whatever the engine raises."""
    try:
        with hide_progress():
            return list(engine.predict(reviews))
    except BaseException as error:  # a tokenizer or a kernel may raise anything; a panic in Rust is no Exception
        if len(reviews) == 1:
            return [error if isinstance(error, EngineError) else EngineError(f"{type(error).__name__}: {error}")]
    return [answer for review in reviews for answer in predict_safely(engine, [review])]


class BatchingBackend:
    """Collects reviews into batches for an engine.

    Args:
        engine: predicts them; the caller closes it.
        batch_items: largest batch.
        batch_wait_s: seconds that a review waits for others.
        on_batch: called with the size of each batch.
    """

    def __init__(
        self, engine: Engine, batch_items: int, batch_wait_s: float, on_batch: Callable[[int], None] = lambda _: None
    ) -> None:
        self._engine = engine
        self._batch_items = batch_items
        self._batch_wait_s = batch_wait_s
        self._on_batch = on_batch
        self._waiting: deque[_Asked] = deque()
        self._batch: list[_Asked] = []
        self._arrival = asyncio.Event()
        self._thread: EngineThread | None = None
        self._collector: asyncio.Task[None] | None = None

    def is_ready(self) -> bool:
        """Return whether it is open, and its thread and its collector run."""
        return (
            self._thread is not None
            and self._thread.is_alive()
            and self._collector is not None
            and not self._collector.done()
        )

    async def open(self) -> None:
        """Start the engine's thread and the collector."""
        self._thread = EngineThread(self._engine)
        self._collector = asyncio.create_task(self._collect(self._thread))

    async def ask(self, review: Review) -> Prediction:
        """Return the prediction for one review.

        Raises:
            EngineError: when the engine fails at it.
        """
        if not self.is_ready():
            raise NotReadyError("The engine is closed")
        outcome: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()
        self._waiting.append((review, outcome))
        self._arrival.set()
        return await outcome

    async def _collect(self, thread: EngineThread) -> None:
        while True:
            await self._arrival.wait()
            if len(self._waiting) < self._batch_items and self._batch_wait_s:
                await asyncio.sleep(self._batch_wait_s)
            batch = self._batch = self._take_batch()
            if not batch:
                continue
            self._on_batch(len(batch))
            answers = await thread.answer([review for review, _ in batch])
            for (_, outcome), answer in zip(batch, answers, strict=True):
                if outcome.done():
                    continue  # its caller is gone
                if isinstance(answer, EngineError):
                    outcome.set_exception(answer)
                else:
                    outcome.set_result(answer)

    def _take_batch(self) -> list[_Asked]:
        batch: list[_Asked] = []
        while self._waiting and len(batch) < self._batch_items:
            review, outcome = self._waiting.popleft()
            if not outcome.done():
                batch.append((review, outcome))
        if not self._waiting:
            self._arrival.clear()
        return batch

    async def close(self) -> None:
        """Stop the collector and the thread; pending reviews fail with NotReadyError."""
        if self._collector is not None:
            self._collector.cancel()
            await asyncio.gather(self._collector, return_exceptions=True)
        for _, outcome in (*self._batch, *self._waiting):
            if not outcome.done():
                outcome.set_exception(NotReadyError("The engine is closed"))
        if self._thread is not None:
            await self._thread.close()
