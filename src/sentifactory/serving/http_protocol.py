"""What a client may cost on one connection: uvicorn's protocol, with limits of size and time.

uvicorn limits neither the size of a head nor the time it takes, neither the requests that are sent behind one another
nor the answers that nobody reads. `connections.py` says how many connections there may be.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from sentifactory.serving.connections import MOST_BEHIND, ConnectionGuard
from sentifactory.serving.problems import Problem

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINGER_S = 1.0  # for a client to read why it was refused
RETRY_FULL_S = 5.0
IDLE, HEAD, BODY, WHOLE = "idle", "head", "body", "whole"  # what has come of the request that is being received


class _StopParserError(Exception):
    """Raised within the parser; why stands in the connection, without the frames that an exception keeps alive."""


def build_protocol(guard: ConnectionGuard) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol with the limits of a guard."""
    import httptools
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    limits = guard.limits

    class GuardedProtocol(HttpToolsProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            self._stage = IDLE
            self._timed: str | None = None  # the stage that the timer is for
            self._timer: asyncio.TimerHandle | None = None
            self._send_timer: asyncio.TimerHandle | None = None
            self._fed_bytes = 0  # since a head, a piece of a body or a whole request has come last
            self._problem: Problem | None = None
            self._is_over = False
            self._running: Any = None  # the request that is being answered; `cycle` is the last that has come
            super().connection_made(transport)
            has_place = guard.make_room()
            guard.n_open += 1
            if has_place:
                guard.waiting[self] = None
                self._time(HEAD, limits.head_s)
            else:
                guard.count("full")
                self._refuse(Problem("no_place", "the service is busy", retry_after_s=RETRY_FULL_S))

        def connection_lost(self, exc: Exception | None) -> None:
            self._leave()
            self._tell_answering()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._is_over:
                return
            self._unset_keepalive_if_required()
            self._fed_bytes += len(data)
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade:
                pass  # nothing is upgraded: the request is answered as it stands
            except httptools.HttpParserError:
                self._refuse_counted(self._problem or Problem("no_http", "this is no request of HTTP/1.1"))
                return
            if self._fed_bytes > limits.head_bytes or (self.headers and len(self.headers) > limits.head_fields):
                self._refuse_counted(self._describe_head())
                return
            if self._stage is WHOLE and self._fed_bytes:  # blank lines before a request
                self._stage = HEAD
            self._watch()

        def _watch(self) -> None:
            """See to it that something is timed whenever the client is waited for."""
            if self._stage is BODY:
                # The service itself answers a slow body; this is for a body that it has no use for.
                self._time(BODY, 2 * limits.body_s)
            elif self._stage is not WHOLE:
                self._time(HEAD, limits.head_s)
            else:
                if self._timer is not None:
                    self._stop_timer()
                is_kept = self.cycle.response_complete and not self.transport.is_closing()
                if is_kept and self.timeout_keep_alive_task is None:  # the answer came before the end of the request
                    self.timeout_keep_alive_task = self.loop.call_later(
                        self.timeout_keep_alive, self.timeout_keep_alive_handler
                    )

        def _time(self, stage: str, seconds: float) -> None:
            if self._timed != stage:
                self._stop_timer()
                self._timed = stage
                self._timer = self.loop.call_later(seconds, self._give_up)

        def _stop_timer(self) -> None:
            self._timed = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _give_up(self) -> None:
            self._timed = self._timer = None
            if self.pipeline or (self._stage is not BODY and not self._is_answered()):
                self._watch()  # an earlier request is being answered: reading may have been paused for it
            elif self._stage is BODY:
                self.drop("slow_body")
            elif self._stage is HEAD:
                self._refuse_counted(Problem("slow_head", f"the head had not come after {limits.head_s:g} s"))
            else:
                self.transport.close()

        def _is_answered(self) -> bool:
            return self._running is None or self._running.response_complete

        # What the parser tells.
        def on_message_begin(self) -> None:
            self._stage = HEAD
            if self in guard.waiting:  # it has begun: others have waited longer
                guard.waiting[self] = guard.waiting.pop(self)
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            # What was fed may hold more than the head; the lines are added up only then.
            if self._fed_bytes > limits.head_bytes or len(self.headers) > limits.head_fields:
                n_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
                if n_bytes > limits.head_bytes or len(self.headers) > limits.head_fields:
                    self._problem = self._describe_head()
            if len(self.pipeline) >= MOST_BEHIND:
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
            self._stage = WHOLE
            super().on_message_complete()
            if not self.cycle.response_complete:
                guard.waiting.pop(self, None)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.transport.is_closing():
                if self.transport.get_write_buffer_size():
                    self._time_sending()
            elif self._is_answered():
                guard.waiting[self] = None

        def _describe_head(self) -> Problem:
            return Problem(
                "head_too_large", f"the head is larger than {limits.head_bytes} bytes or {limits.head_fields} lines"
            )

        def _start_asgi_task(self, cycle: Any, app: Any) -> None:
            self._running = cycle
            super()._start_asgi_task(cycle, app)

        # What the transport tells.
        def pause_writing(self) -> None:
            super().pause_writing()
            self._time_sending()
            guard.unread.setdefault(self)
            guard.check_unread()

        def resume_writing(self) -> None:
            super().resume_writing()
            guard.unread.pop(self, None)
            if self._send_timer is not None:
                self._send_timer.cancel()
                self._send_timer = None

        def _time_sending(self) -> None:
            if self._send_timer is None:
                self._send_timer = self.loop.call_later(limits.send_s, self.drop, "slow_reader")

        def timeout_keep_alive_handler(self) -> None:
            if self.transport.get_write_buffer_size():  # an orderly end would wait for a client that does not read
                self.drop("slow_reader")
            else:
                super().timeout_keep_alive_handler()

        # How it ends.
        def drop(self, reason: str = "") -> None:
            """End it at once; a request that is being answered is given up."""
            if not self._is_over:
                guard.count(reason)
            self._leave()
            self._tell_answering()
            self.transport.abort()

        def _refuse_counted(self, problem: Problem) -> None:
            guard.count(problem.code)
            self._refuse(problem)

        def _refuse(self, problem: Problem) -> None:
            """Answer with a problem, and end it when the client has had the time to read."""
            self._leave()
            if not self._is_answered():  # this would be taken for the answer that is still to come
                self._tell_answering()
                self.transport.abort()
                return
            self.headers, self.scope, self.parser = [], None, None  # type: ignore[assignment]
            if self.transport.is_closing():
                return
            self.transport.pause_reading()
            self.transport.write(_render(problem))
            self.transport.write_eof()
            guard.let_linger(self, self.loop.call_later(LINGER_S, self.drop))

        def _leave(self) -> None:
            guard.forget(self)
            if self._is_over:
                return
            self._is_over = True
            guard.n_open -= 1
            self._stop_timer()
            self._unset_keepalive_if_required()
            if self._send_timer is not None:
                self._send_timer.cancel()

        def _tell_answering(self) -> None:
            """Let the service know that nobody waits for its answers, before it writes into what is closed."""
            self.pipeline.clear()
            for cycle in (self._running, self.cycle):
                if cycle is not None and not cycle.response_complete:
                    cycle.disconnected = True
                    cycle.message_event.set()
            self.flow.resume_writing()

    return GuardedProtocol


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
