"""What every request passes first and every answer last: the key, the counting, and a net for our own defects."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import traceback
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from sentifactory.progress import say
from sentifactory.serving.metrics import Metrics
from sentifactory.serving.problems import Problem

OPEN_ROUTES = ("/health", "/health/ready")  # who starts and stops services has no key
_BEARER = "bearer"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Gate:
    """ASGI middleware around the whole service.

    Args:
        app: the service.
        key: bearer token that is asked for, or None.
        metrics: where requests are counted.
        routes: the known routes; others are counted together.
    """

    def __init__(self, app: AsgiApp, key: str | None, metrics: Metrics, routes: Collection[str]) -> None:
        self._app = app
        self._key = None if key is None else _digest(key.encode())
        self._metrics = metrics
        self._routes = frozenset(routes)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.monotonic()
        status = 0

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if self._may_enter(scope):
                await self._app(scope, receive, send_counted)
            else:
                await self._refuse(Problem("no_key", "the key is missing or wrong"), send_counted)
        except Exception:  # a defect: its trace belongs into our log and not into the answer
            say(traceback.format_exc())
            if not status:
                await self._refuse(Problem("defect", "the service has made a mistake"), send_counted)
        route = scope["path"] if scope["path"] in self._routes else "other"
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(time.monotonic() - start)

    async def _refuse(self, problem: Problem, send: Send) -> None:
        self._metrics.problems.labels(problem.code).inc()
        await send_problem(problem, send)

    def _may_enter(self, scope: MutableMapping[str, Any]) -> bool:
        if self._key is None or scope["path"] in OPEN_ROUTES:
            return True
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = (given[0] if len(given) == 1 else b"").partition(b" ")
        # Digests are of one length: the comparison takes the same time for every wrong key.
        is_right = hmac.compare_digest(_digest(token.strip()), self._key)
        return is_right and scheme.decode("latin-1").lower() == _BEARER


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


async def send_problem(problem: Problem, send: Send) -> None:
    """Send a problem as the answer to a request."""
    body = json.dumps(problem.to_dict()).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **problem.list_headers()}
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
