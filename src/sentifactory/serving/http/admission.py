"""Admission control: refuses texts that would wait too long, so that the others are answered in time.

A fixed limit is not enough: behind a slow engine all texts of a long queue would be answered too late. The wait is
therefore estimated from the throughput while there was work, and a request is refused when it exceeds half of the
request time limit. Before the throughput is known, only a part of the limit is used.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sentifactory.serving.http.problems import Problem

WINDOW_S = 10.0  # of busy time, over which the throughput is measured
MAX_RETRY_S = 60.0
COLD_START_DIVISOR = 4  # of the limit, before anything has been answered


class AdmissionQueue:
    """Counts the texts that are being answered or waiting.

    Args:
        limit: of the texts at the same time.
        max_wait_s: longest estimated wait with which texts are admitted, in seconds.
        clock: returns seconds; replaced by tests.
    """

    def __init__(self, limit: int, max_wait_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.n_texts = 0
        self._limit = limit
        self._max_wait_s = max_wait_s
        self._clock = clock
        self._busy_s = 0.0
        self._updated_at = clock()
        self._answered: deque[tuple[float, int]] = deque()  # (busy time, number of texts answered then)
        self._n_answered = 0  # their sum: it is needed for every request

    @contextmanager
    def admit(self, n_texts: int) -> Iterator[Callable[[int], None]]:
        """Count texts for the time of the block; yields a function to call with the number of texts answered.

        Raises:
            Problem: queue_full.
        """
        self._advance()
        wait_s = self.estimate_wait_s(n_texts)
        limit = self._limit if self._answered else self._limit // COLD_START_DIVISOR
        # An empty queue admits a request however slow the engine is: otherwise its throughput is never measured again.
        is_first = not self.n_texts and n_texts <= self._limit
        if not is_first and (self.n_texts + n_texts > limit or wait_s > self._max_wait_s):
            raise Problem(
                "queue_full",
                "the service is busy; send the request again later",
                retry_after_s=min(MAX_RETRY_S, max(1.0, wait_s / 2)),
            )
        self.n_texts += n_texts
        try:
            yield self._count
        finally:
            self._advance()
            self.n_texts -= n_texts

    def estimate_wait_s(self, n_more: int) -> float:
        """Return the seconds in which further texts would be answered; 0 while the throughput is unknown."""
        if not self._n_answered:
            return 0.0
        span_s = min(WINDOW_S, self._busy_s)
        return (self.n_texts + n_more) * span_s / self._n_answered

    def _count(self, n_answered: int) -> None:
        self._advance()
        self._answered.append((self._busy_s, n_answered))
        self._n_answered += n_answered

    def _advance(self) -> None:
        now = self._clock()
        if self.n_texts:
            self._busy_s += now - self._updated_at
        self._updated_at = now
        while self._answered and self._answered[0][0] < self._busy_s - WINDOW_S:
            self._n_answered -= self._answered.popleft()[1]
