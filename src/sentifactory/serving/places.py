"""The bounded queue: how many texts may be under way or wait, and when the next one is turned away instead.

A fixed number is not enough: a queue that takes longer than a request may last would answer everybody too late. So the
time that a text would wait is estimated from the texts that were answered lately, over the time in which there was
something to answer, and who would wait for more than half of what a request may take is told to come back later. As
long as nothing is known of the pace, only a part of the places is given away.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sentifactory.serving.problems import Problem

WINDOW_S = 10.0  # of busy time, from which the pace is taken
LONGEST_RETRY_S = 60.0
UNKNOWN_PACE_SHARE = 4  # one in so many places is given away before anything has been answered


class Places:
    """Counts texts from their coming in to their answer.

    Args:
        limit: most texts at the same time.
        longest_wait_s: seconds that a text may have to wait by estimate.
        clock: seconds from any start, for tests.
    """

    def __init__(self, limit: int, longest_wait_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.taken = 0
        self._limit = limit
        self._longest_wait_s = longest_wait_s
        self._clock = clock
        self._busy_s = 0.0
        self._seen_at = clock()
        self._answered: deque[tuple[float, int]] = deque()  # busy time at which so many texts were answered

    @contextmanager
    def take(self, n_texts: int) -> Iterator[Callable[[int], None]]:
        """Hold places for the time of the block; gives a function that is told how many texts were answered.

        Raises:
            Problem: queue_full.
        """
        self._advance()
        wait_s = self.estimate_wait_s(n_texts)
        limit = self._limit if self._answered else self._limit // UNKNOWN_PACE_SHARE
        # Who comes when nobody is there is let in, however slow the engine may be: else it would never be found out.
        is_alone = not self.taken and n_texts <= self._limit
        if not is_alone and (self.taken + n_texts > limit or wait_s > self._longest_wait_s):
            raise Problem(
                "queue_full",
                "the service is busy; send the request again later",
                retry_after_s=min(LONGEST_RETRY_S, max(1.0, wait_s / 2)),
            )
        self.taken += n_texts
        try:
            yield self._count
        finally:
            self._advance()
            self.taken -= n_texts

    def estimate_wait_s(self, n_more: int) -> float:
        """Return the seconds until texts that came now would be answered; 0 where nothing is known."""
        n_answered = sum(number for _, number in self._answered)
        if not n_answered:
            return 0.0
        span_s = min(WINDOW_S, self._busy_s)
        return (self.taken + n_more) * span_s / n_answered

    def _count(self, n_answered: int) -> None:
        self._advance()
        self._answered.append((self._busy_s, n_answered))

    def _advance(self) -> None:
        now = self._clock()
        if self.taken:
            self._busy_s += now - self._seen_at
        self._seen_at = now
        while self._answered and self._answered[0][0] < self._busy_s - WINDOW_S:
            self._answered.popleft()
