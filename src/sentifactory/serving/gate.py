"""What every request passes first and every answer last: key or host, the counting, and a net for our own defects."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
import traceback
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from sentifactory.progress import say
from sentifactory.serving.docs_page import DOCS_ROUTES
from sentifactory.serving.hosts import HostRule
from sentifactory.serving.metrics import Metrics
from sentifactory.serving.problems import Problem
from sentifactory.serving.settings import Access
from sentifactory.serving.summed_log import SummedLog

# Who starts and stops services has no key; the page of the description asks for it.
OPEN_ROUTES = ("/health", "/health/ready", *DOCS_ROUTES)
IS_KNOWN = "sentifactory.is_known"  # in the scope: whether the model may be named to who asks
SLOW_DOWN_S = 0.5  # for which the answer to a wrong key is held back
MOST_SLOWED = 256  # such answers at the same time; they shall not take the places of those who have the key
_BEARER = "bearer"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Gate:
    """ASGI middleware around the whole service.

    Args:
        app: the service.
        access: the bearer token that is asked for; without one, the names by which the service may be called.
        metrics: where requests are counted.
        routes: the known routes; others are counted together.
    """

    def __init__(self, app: AsgiApp, access: Access, metrics: Metrics, routes: Collection[str]) -> None:
        self._app = app
        self._key = None if access.key is None else _digest(access.key.encode())
        self._hosts = HostRule(access)
        self._metrics = metrics
        self._routes = frozenset(routes)
        self._n_slowed = 0
        self._wrong_keys = SummedLog("Wrong keys came")
        self._wrong_hosts = SummedLog(
            "Refused, because without a key the service answers only under names that it knows "
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

    async def _check(self, scope: MutableMapping[str, Any]) -> Problem | None:
        """Return why a request is refused, or None; says in the scope whether the model may be named to who asks."""
        if self._key is None:
            hosts = _list_values(scope, b"host")
            if not self._hosts.knows(hosts):
                self._wrong_hosts.count(repr(b", ".join(hosts))[1:])
                return Problem("wrong_host", "without a key, this service does not answer under this host name")
            scope[IS_KNOWN] = True
            return None
        given = _list_values(scope, b"authorization")
        scope[IS_KNOWN] = len(given) == 1 and self._is_right(given[0])
        if given and not scope[IS_KNOWN]:
            await self._note_wrong_key(scope)
        if scope[IS_KNOWN] or scope["path"] in OPEN_ROUTES:
            return None
        return Problem("no_key", "the key is missing or wrong")

    def _is_right(self, given: bytes) -> bool:
        scheme, _, token = given.partition(b" ")
        # Digests are of one length: the comparison takes the same time for every wrong key.
        is_right = hmac.compare_digest(_digest(token.strip()), self._key or b"")
        return is_right and scheme.decode("latin-1").lower() == _BEARER

    async def _note_wrong_key(self, scope: MutableMapping[str, Any]) -> None:
        """Count a wrong key and hold its answer back; who has the right one is never held back."""
        self._metrics.wrong_keys.inc()
        self._wrong_keys.count(f"from {(scope.get('client') or ('an unknown address',))[0]}")
        if self._n_slowed >= MOST_SLOWED:
            return
        self._n_slowed += 1
        try:
            await asyncio.sleep(SLOW_DOWN_S)
        finally:
            self._n_slowed -= 1


def _list_values(scope: MutableMapping[str, Any], name: bytes) -> list[bytes]:
    return [value for one, value in scope["headers"] if one == name]


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


async def send_problem(problem: Problem, send: Send) -> None:
    """Send a problem as the answer to a request."""
    body = json.dumps(problem.to_dict()).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **problem.list_headers()}
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
