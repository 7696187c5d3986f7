"""uvicorn's HTTP protocol with limits of size and time on each connection.

uvicorn limits neither the size of a request head nor the time it takes, neither pipelined requests nor answers that
the client does not read. `connections.py` limits the number of connections.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from sentifactory.serving.http.connections import HOLD_BACK, MAX_PIPELINED, ConnectionLimiter
from sentifactory.serving.http.problems import Problem

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINGER_S = 1.0  # for a client to read the refusal
RETRY_FULL_S = 5.0
IDLE, HEAD, BODY, COMPLETE = "idle", "head", "body", "complete"  # state of the request that is being received


class _StopParserError(Exception):
    """Raised in callbacks of the parser; the connection holds the `Problem`, so that no frames are kept alive."""


def limit_connections(limiter: ConnectionLimiter) -> dict[str, Any]:
    """Return the arguments of uvicorn's Config with which connections are limited."""
    return {
        "http": build_protocol(limiter),
        "ws": "none",
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "backlog": limiter.backlog,
        "timeout_keep_alive": limiter.limits.idle_s,
        "callback_notify": limiter.check_descriptors,
        "timeout_notify": 1,  # second
    }


def build_protocol(limiter: ConnectionLimiter) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol class with the limits of a limiter."""
    import httptools
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    limits = limiter.limits

    class LimitedProtocol(HttpToolsProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            self._stage = IDLE
            self._timed: str | None = None  # the stage that the timer is for
            self._timer: asyncio.TimerHandle | None = None
            self._send_timer: asyncio.TimerHandle | None = None
            self._fed_bytes = 0  # since the end of the last head, piece of a body, or request
            self._problem: Problem | None = None
            self._is_over = False
            self._running: Any = None  # the request that is being answered; `cycle` is the last one received
            super().connection_made(transport)
            is_allowed = limiter.make_room()
            limiter.n_open += 1
            if is_allowed:
                limiter.waiting[self] = None
                self._time(HEAD, limits.head_s)
            else:
                limiter.count("full")
                self._refuse(Problem("no_place", "the service is busy", retry_after_s=RETRY_FULL_S))

        def connection_lost(self, exc: Exception | None) -> None:
            self._leave()
            self._abandon_requests()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._is_over:
                return
            self._unset_keepalive_if_required()
            self._fed_bytes += len(data)
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade:
                pass  # nothing is upgraded: the request is answered as plain HTTP
            except httptools.HttpParserError:
                self._refuse_counted(self._problem or Problem("no_http", "this is not an HTTP/1.1 request"))
                return
            if self._fed_bytes > limits.head_bytes or (self.headers and len(self.headers) > limits.head_fields):
                self._refuse_counted(self._describe_head())
                return
            if self._stage is COMPLETE and self._fed_bytes:  # blank lines before a request
                self._stage = HEAD
            self._update_timer()

        def _update_timer(self) -> None:
            """Run a timer whenever the client has to send something."""
            if self._stage is BODY:
                # The service itself answers a slow body; this is for a body that it does not read.
                self._time(BODY, 2 * limits.body_s)
            elif self._stage is not COMPLETE:
                self._time(HEAD, limits.head_s)
            else:
                if self._timer is not None:
                    self._stop_timer()
                is_kept = self.cycle.response_complete and not self.transport.is_closing()
                if is_kept and self.timeout_keep_alive_task is None:  # answered before the end of the request
                    self.timeout_keep_alive_task = self.loop.call_later(
                        self.timeout_keep_alive, self.timeout_keep_alive_handler
                    )

        def _time(self, stage: str, seconds: float) -> None:
            if self._timed != stage:
                self._stop_timer()
                self._timed = stage
                self._timer = self.loop.call_later(seconds, self._on_timeout)

        def _stop_timer(self) -> None:
            self._timed = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _on_timeout(self) -> None:
            self._timed = self._timer = None
            if self.pipeline or (self._stage is not BODY and not self._is_answered()):
                self._update_timer()  # an earlier request is being answered: reading may have been paused for it
            elif self._stage is BODY:
                self.drop("slow_body")
            elif self._stage is HEAD:
                self._refuse_counted(Problem("slow_head", f"the head had not arrived after {limits.head_s:g} s"))
            else:
                self.transport.close()

        def _is_answered(self) -> bool:
            return self._running is None or self._running.response_complete

        def is_streaming(self) -> bool:
            return self._running is not None and self._running.response_started

        # Callbacks of the parser.
        def on_message_begin(self) -> None:
            self._stage = HEAD
            if self in limiter.waiting:  # it goes behind those that are silent
                limiter.waiting[self] = limiter.waiting.pop(self)
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            # The bytes fed may include more than the head, so the lines are counted.
            if self._fed_bytes > limits.head_bytes or len(self.headers) > limits.head_fields:
                n_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
                if n_bytes > limits.head_bytes or len(self.headers) > limits.head_fields:
                    self._problem = self._describe_head()
            if len(self.pipeline) >= MAX_PIPELINED:
                self._problem = Problem("too_many_behind", "too many requests at once on one connection")
            if self._problem is not None:
                raise _StopParserError
            self._fed_bytes = 0
            self._stage = BODY
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._fed_bytes = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._fed_bytes = 0
            self._stage = COMPLETE
            super().on_message_complete()
            if not self.cycle.response_complete:
                limiter.waiting.pop(self, None)
                limiter.answering.setdefault(self)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.transport.is_closing():
                if self.transport.get_write_buffer_size():
                    self._time_sending()
            elif self._is_answered():
                limiter.answering.pop(self, None)
                limiter.waiting[self] = None

        def _describe_head(self) -> Problem:
            return Problem(
                "head_too_large", f"the head is larger than {limits.head_bytes} bytes or {limits.head_fields} lines"
            )

        def _start_asgi_task(self, cycle: Any, app: Any) -> None:
            self._running = cycle
            cycle.scope[HOLD_BACK] = self._hold_back
            super()._start_asgi_task(cycle, app)

        def _hold_back(self, *, is_held: bool) -> None:
            """Mark that this connection may be closed for a new one, although its request is being answered."""
            if is_held and not self._is_over:
                limiter.held_back[self] = None
            else:
                limiter.held_back.pop(self, None)

        # Callbacks of the transport.
        def pause_writing(self) -> None:
            super().pause_writing()
            self._time_sending()
            limiter.unread.setdefault(self)
            limiter.check_unread()

        def resume_writing(self) -> None:
            super().resume_writing()
            limiter.unread.pop(self, None)
            if self._send_timer is not None:
                self._send_timer.cancel()
                self._send_timer = None

        def _time_sending(self) -> None:
            if self._send_timer is None:
                self._send_timer = self.loop.call_later(limits.send_s, self.drop, "slow_reader")

        def timeout_keep_alive_handler(self) -> None:
            if self.transport.get_write_buffer_size():  # closing would wait for a client that does not read
                self.drop("slow_reader")
            else:
                super().timeout_keep_alive_handler()

        # Closing.
        def drop(self, reason: str = "") -> None:
            """Close it at once; a request that is being answered is abandoned."""
            if not self._is_over:
                limiter.count(reason)
            self._leave()
            self._abandon_requests()
            self.transport.abort()

        def _refuse_counted(self, problem: Problem) -> None:
            limiter.count(problem.code)
            self._refuse(problem)

        def _refuse(self, problem: Problem) -> None:
            """Answer with a problem, and close the connection after the client has had time to read it."""
            self._leave()
            if not self._is_answered():  # the client would take this for the answer to the earlier request
                self._abandon_requests()
                self.transport.abort()
                return
            self.headers, self.scope, self.parser = [], None, None  # type: ignore[assignment]
            if self.transport.is_closing():
                return
            self.transport.pause_reading()
            self.transport.write(_render(problem))
            self.transport.write_eof()
            limiter.let_linger(self, self.loop.call_later(LINGER_S, self.drop))

        def _leave(self) -> None:
            limiter.forget(self)
            if self._is_over:
                return
            self._is_over = True
            limiter.n_open -= 1
            self._stop_timer()
            self._unset_keepalive_if_required()
            if self._send_timer is not None:
                self._send_timer.cancel()

        def _abandon_requests(self) -> None:
            """Let the service know that the client is gone, before it writes to a closed connection."""
            self.pipeline.clear()
            for cycle in (self._running, self.cycle):
                if cycle is not None and not cycle.response_complete:
                    cycle.disconnected = True
                    cycle.message_event.set()
            self.flow.resume_writing()

    return LimitedProtocol


def _render(problem: Problem) -> bytes:
    body = json.dumps(problem.to_dict()).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **problem.list_headers(),
    }
    lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
