"""How many connections there may be, and which one goes when there are too many.

Their number is kept below that of the descriptors. When all places are taken, the connection that has waited longest
for its client (silent, idle, in the middle of a head or a body) makes room for the new one: silent ones, however many,
keep nobody out. Only when every connection has a request that is being answered is a new one turned away, with 503.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable
from typing import Any, Protocol

from sentifactory.serving.metrics import Metrics
from sentifactory.serving.settings import Limits
from sentifactory.serving.summed_log import SummedLog

MOST_DESCRIPTORS = 1 << 16  # to which the soft limit is raised, where the hard one allows it
OWN_DESCRIPTORS = 128  # for files, the log, and what asks vLLM
LONGEST_BACKLOG = 2048
MOST_BEHIND = 16  # requests that one client may send before the first of them is answered
MOST_LINGERING = 64  # refused connections whose clients may still read why

_WORDS = {
    "made_room": "made room for a new one, because all {most} places were taken",
    "full": "turned away with 503, because all {most} places were taken by requests that are being answered",
    "head_too_large": "had a head of more than {head_bytes} bytes or {head_fields} lines",
    "slow_head": "had not sent its head after {head_s:g} s",
    "slow_body": "had not sent its body after {body_s:g} s",
    "slow_reader": "did not read its answer",
    "too_many_behind": "sent more than {behind} requests without waiting for an answer",
    "no_http": "did not speak HTTP",
}


def raise_descriptor_limit() -> int:
    """Raise the soft limit of descriptors to the hard one and return it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return MOST_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def choose_backlog(n_descriptors: int) -> int:
    """Return how many connections may wait to be taken; a whole backlog is taken at once, before any is looked at."""
    return max(16, min(LONGEST_BACKLOG, n_descriptors // 4))


def choose_most_connections(wanted: int, n_descriptors: int) -> int:
    """Return how many connections there may be, so that descriptors are left for a backlog and for ourselves.

    Example:
        >>> choose_most_connections(4096, 1024), choose_most_connections(4096, 65536)
        (640, 4096)
    """
    return max(1, min(wanted, n_descriptors - choose_backlog(n_descriptors) - OWN_DESCRIPTORS))


class Dropped(Protocol):
    """A connection as the guard sees it."""

    transport: asyncio.Transport

    def drop(self, reason: str = "") -> None:
        """End it at once, for one of `_WORDS` where it was not refused already."""
        ...


class ConnectionGuard:
    """Knows all connections: who waits for its client, who does not read, and who is to go when places are short.

    Args:
        limits: of times, sizes and numbers.
        metrics: where ended connections are counted.
        most: connections at the same time.
    """

    def __init__(self, limits: Limits, metrics: Metrics, most: int) -> None:
        self.limits = limits
        self.most = most
        self.n_open = 0
        self.waiting: dict[Dropped, None] = {}  # for their client; longest first
        self.unread: dict[Dropped, None] = {}  # whose answer is not read; longest first
        self.lingering: dict[Dropped, asyncio.TimerHandle] = {}  # refused, and reading why
        self._metrics = metrics
        self._log = SummedLog("Connections")
        self._descriptor_log = SummedLog("No descriptor is free, so that no connection can be taken (see `ulimit -n`)")
        metrics.connections.set_function(lambda: self.n_open)

    def make_room(self) -> bool:
        """Return whether there is a place for one more, after ending the one that has waited longest if need be."""
        if self.n_open < self.most:
            return True
        if not self.waiting:
            return False
        next(iter(self.waiting)).drop("made_room")
        return True

    def let_linger(self, refused: Dropped, timer: asyncio.TimerHandle) -> None:
        """Keep a refused connection until its timer comes; of too many, end the one that has had the longest."""
        self.lingering[refused] = timer
        if len(self.lingering) > MOST_LINGERING:
            next(iter(self.lingering)).drop()

    def forget(self, connection: Dropped) -> None:
        """Do without a connection that is over."""
        self.waiting.pop(connection, None)
        self.unread.pop(connection, None)
        if timer := self.lingering.pop(connection, None):
            timer.cancel()

    def check_unread(self) -> None:
        """End those that have not read for longest while all unread answers together take too much memory."""
        left = sum(one.transport.get_write_buffer_size() for one in self.unread)
        while left > self.limits.held_bytes and self.unread:
            slowest = next(iter(self.unread))
            left -= slowest.transport.get_write_buffer_size()
            slowest.drop("slow_reader")

    def count(self, reason: str) -> None:
        """Count a connection that is ended, and say so in the log."""
        self._metrics.ended_connections.labels(reason).inc()
        limits = self.limits
        words = _WORDS[reason].format(
            most=self.most,
            behind=MOST_BEHIND,
            head_bytes=limits.head_bytes,
            head_fields=limits.head_fields,
            head_s=limits.head_s,
            body_s=limits.body_s,
        )
        self._log.count(words)

    def check_descriptors(self, descriptor: int) -> None:
        """Say so when none is free. Neither event loop does: one is silent, the other writes a trace each second."""
        try:
            os.close(os.dup(descriptor))
        except OSError as error:
            if is_out_of_descriptors(error):
                self._descriptor_log.count("for a second")


def is_out_of_descriptors(error: BaseException | None) -> bool:
    """Return whether an error says that no descriptor is free, for this process or on this machine."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def hush_accept_errors(default: Callable[[dict[str, Any]], None]) -> Callable[[Any, dict[str, Any]], None]:
    """Return an exception handler for asyncio's loop that leaves the lack of descriptors to the guard."""

    def handle(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not is_out_of_descriptors(context.get("exception")):
            default(context)

    return handle
