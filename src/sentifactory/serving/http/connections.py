"""The limit of open connections, and which one is closed when it is reached.

It is kept below the limit of file descriptors. When it is reached, the connection that has waited longest for its
client (silent, idle, in the middle of a head or a body) is closed for the new one, so that silent connections keep
nobody out. If there is none, the next candidates are one whose answer is delayed because its key is wrong, one that
does not read its answer, and the oldest streaming answer (events that a page listens to). A new connection is refused,
with 503, only when every other has a request that is being answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable
from itertools import chain
from typing import Any, Protocol

from sentifactory.serving.http.rate_limited_log import RateLimitedLog
from sentifactory.serving.service_settings import Limits

MAX_DESCRIPTORS = 1 << 16  # the soft limit is raised up to this
RESERVED_DESCRIPTORS = 128  # for files, the log, and connections to vLLM
MAX_BACKLOG = 2048
MAX_PIPELINED = 16  # requests that one client may send before the first of them is answered
MAX_LINGERING = 64  # refused connections that stay open for their clients to read the refusal
HOLD_BACK = "sentifactory.hold_back"  # in the scope: a function to call when the answer is delayed, and when it is not

_REASONS = {
    "made_room": "made room for a new one, because all {most} places were taken",
    "full": "refused with 503, because all {most} places were taken by requests that are being answered",
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
        return MAX_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def choose_backlog(n_descriptors: int) -> int:
    """Return the size of the listen backlog; the event loop accepts a whole backlog before it handles any of it."""
    return max(16, min(MAX_BACKLOG, n_descriptors // 4))


def choose_max_connections(wanted: int, n_descriptors: int) -> int:
    """Return the limit of connections that leaves descriptors for a backlog and for the process itself.

    Example:
        >>> choose_max_connections(4096, 1024), choose_max_connections(4096, 65536)
        (640, 4096)
    """
    return max(1, min(wanted, n_descriptors - choose_backlog(n_descriptors) - RESERVED_DESCRIPTORS))


class LimitedConnection(Protocol):
    """A connection as the limiter sees it."""

    transport: asyncio.Transport

    def is_streaming(self) -> bool:
        """Return whether part of its answer has been sent."""
        ...

    def drop(self, reason: str = "") -> None:
        """Close it at once; the reason is a key of `_REASONS`, "" where it has been refused before."""
        ...


class ConnectionLimiter:
    """Tracks all connections by state, and closes one when a limit is reached.

    Args:
        limits: of times, sizes and numbers.
        on_ended: called with the reason for each connection that is closed.
    """

    def __init__(self, limits: Limits, on_ended: Callable[[str], None] = lambda _: None) -> None:
        n_descriptors = raise_descriptor_limit()
        self.limits = limits
        self.backlog = choose_backlog(n_descriptors)
        self.max_connections = choose_max_connections(limits.connections, n_descriptors)
        self.n_open = 0
        # Each in the order of entry, oldest first.
        self.waiting: dict[LimitedConnection, None] = {}  # for their client
        self.held_back: dict[LimitedConnection, None] = {}  # whose answer is delayed
        self.answering: dict[LimitedConnection, None] = {}
        self.unread: dict[LimitedConnection, None] = {}  # whose answer the client does not read
        self.lingering: dict[LimitedConnection, asyncio.TimerHandle] = {}  # refused; the client reads the refusal
        self._on_ended = on_ended
        self._log = RateLimitedLog("Connections")
        self._descriptor_log = RateLimitedLog(
            "No descriptor is free, so that no connection can be taken (see `ulimit -n`)"
        )

    def make_room(self) -> bool:
        """Return whether one more connection is allowed; closes another one if necessary."""
        if self.n_open < self.max_connections:
            return True
        streaming = (connection for connection in self.answering if connection.is_streaming())
        replaceable = next(chain(self.waiting, self.held_back, self.unread, streaming), None)
        if replaceable is None:
            return False
        replaceable.drop("made_room")
        return True

    def let_linger(self, refused: LimitedConnection, timer: asyncio.TimerHandle) -> None:
        """Keep a refused connection until its timer fires; of too many, close the oldest."""
        self.lingering[refused] = timer
        if len(self.lingering) > MAX_LINGERING:
            next(iter(self.lingering)).drop()

    def forget(self, connection: LimitedConnection) -> None:
        """Remove a closed connection."""
        self.waiting.pop(connection, None)
        self.held_back.pop(connection, None)
        self.answering.pop(connection, None)
        self.unread.pop(connection, None)
        if timer := self.lingering.pop(connection, None):
            timer.cancel()

    def check_unread(self) -> None:
        """Close the slowest readers while all unread answers together take too much memory."""
        n_bytes = sum(connection.transport.get_write_buffer_size() for connection in self.unread)
        while n_bytes > self.limits.held_bytes and self.unread:
            slowest = next(iter(self.unread))
            n_bytes -= slowest.transport.get_write_buffer_size()
            slowest.drop("slow_reader")

    def count(self, reason: str) -> None:
        """Count a connection that is closed, and log it."""
        self._on_ended(reason)
        limits = self.limits
        sentence = _REASONS[reason].format(
            most=self.max_connections,
            behind=MAX_PIPELINED,
            head_bytes=limits.head_bytes,
            head_fields=limits.head_fields,
            head_s=limits.head_s,
            body_s=limits.body_s,
        )
        self._log.count(sentence)

    async def check_descriptors(self) -> None:
        """Log when no descriptor is free: uvloop says nothing about it, asyncio's loop writes a traceback."""
        loop = asyncio.get_running_loop()
        if loop.get_exception_handler() is None:
            loop.set_exception_handler(_ignore_accept_errors)
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            if _is_out_of_descriptors(error):
                self._descriptor_log.count("for a second")


def _is_out_of_descriptors(error: BaseException | None) -> bool:
    """Return whether an error means that no descriptor is free, for this process or on this machine."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def _ignore_accept_errors(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Handle all errors but the lack of descriptors, which asyncio's loop reports once a second."""
    if not _is_out_of_descriptors(context.get("exception")):
        loop.default_exception_handler(context)
