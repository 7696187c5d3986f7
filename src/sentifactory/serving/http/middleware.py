"""Middleware around the whole service: checks key or host name, counts requests, answers unexpected errors."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
import traceback
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from sentifactory.serving.http.connections import HOLD_BACK
from sentifactory.serving.http.docs_page import DOCS_ROUTES
from sentifactory.serving.http.hosts import AllowedHosts
from sentifactory.serving.http.problems import Problem
from sentifactory.serving.http.prometheus_metrics import Metrics
from sentifactory.serving.http.rate_limited_log import RateLimitedLog
from sentifactory.serving.service_settings import Access
from sentifactory.system.progress import say

# Health probes carry no key; the page of the description asks its reader for it.
OPEN_ROUTES = ("/health", "/health/ready", *DOCS_ROUTES)
IS_AUTHENTICATED = "sentifactory.is_authenticated"  # in the scope: whether the answer may name the model
WRONG_KEY_DELAY_S = 0.5  # of the answer to a wrong key
MAX_DELAYED = 256  # delayed answers at the same time; more would take connections from clients that have the key
_BEARER = "bearer"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class AuthMiddleware:
    """ASGI middleware around the whole service.

    Args:
        app: the service.
        access: the required bearer token; without one, the host names under which the service answers.
        metrics: where requests are counted.
        routes: the known routes; all others are counted together.
    """

    def __init__(self, app: AsgiApp, access: Access, metrics: Metrics, routes: Collection[str]) -> None:
        self._app = app
        self._key = None if access.key is None else _digest(access.key.encode())
        self._hosts = AllowedHosts(access)
        self._metrics = metrics
        self._routes = frozenset(routes)
        self._n_delayed = 0
        self._wrong_keys = RateLimitedLog("Wrong keys came")
        self._wrong_hosts = RateLimitedLog(
            "Refused, because without a key the service answers only under host names that it knows "
            "(--allowed_host NAME adds one)"
        )

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
            if (problem := await self._check(scope)) is None:
                await self._app(scope, receive, send_counted)
            else:
                await self._refuse(problem, send_counted)
        except Exception:  # the traceback goes to the log and not to the client
            say(traceback.format_exc())
            if not status:
                await self._refuse(Problem("defect", "internal error of the service"), send_counted)
        route = scope["path"] if scope["path"] in self._routes else "other"
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(time.monotonic() - start)

    async def _refuse(self, problem: Problem, send: Send) -> None:
        self._metrics.problems.labels(problem.code).inc()
        await send_problem(problem, send)

    async def _check(self, scope: MutableMapping[str, Any]) -> Problem | None:
        """Return why a request is refused, or None; sets `IS_AUTHENTICATED` in the scope."""
        if self._key is None:
            hosts = _list_values(scope, b"host")
            if not self._hosts.allows(hosts):
                self._wrong_hosts.count(repr(b", ".join(hosts))[1:])
                return Problem("wrong_host", "without a key, this service does not answer under this host name")
            scope[IS_AUTHENTICATED] = True
            return None
        given = _list_values(scope, b"authorization")
        scope[IS_AUTHENTICATED] = len(given) == 1 and self._is_right(given[0])
        if given and not scope[IS_AUTHENTICATED]:
            await self._delay_wrong_key(scope)
        if scope[IS_AUTHENTICATED] or scope["path"] in OPEN_ROUTES:
            return None
        return Problem("no_key", "the key is missing or wrong")

    def _is_right(self, given: bytes) -> bool:
        scheme, _, token = given.partition(b" ")
        # Digests have one length, so that the comparison takes the same time for every wrong key.
        is_right = hmac.compare_digest(_digest(token.strip()), self._key or b"")
        return is_right and scheme.decode("latin-1").lower() == _BEARER

    async def _delay_wrong_key(self, scope: MutableMapping[str, Any]) -> None:
        """Count a wrong key and delay its answer."""
        self._metrics.wrong_keys.inc()
        self._wrong_keys.count(f"from {(scope.get('client') or ('an unknown address',))[0]}")
        if self._n_delayed >= MAX_DELAYED:
            return
        hold_back = scope.get(HOLD_BACK, lambda **_: None)
        self._n_delayed += 1
        hold_back(is_held=True)
        try:
            await asyncio.sleep(WRONG_KEY_DELAY_S)
        finally:
            self._n_delayed -= 1
            hold_back(is_held=False)


def _list_values(scope: MutableMapping[str, Any], name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key == name]


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


async def send_problem(problem: Problem, send: Send) -> None:
    """Send a problem as the answer to a request."""
    body = json.dumps(problem.to_dict()).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **problem.list_headers()}
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
