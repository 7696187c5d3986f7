"""ASGI middleware for our vLLM servers: every route but `/health` requires the key. Standard library only.

vLLM itself requires its key only below `/v1` and on a few other routes; `/invocations`, `/tokenize`, `/classify` and
`/metrics` are open to every user of the machine. `start_vllm` copies this file onto vLLM's import path and passes
`--middleware`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

MODULE = "sentifactory_vllm_guard"  # module name inside vLLM
MIDDLEWARE = f"{MODULE}.KeyForEveryRoute"
OPEN_ROUTE = "/health"

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class KeyForEveryRoute:
    """Requires the key in VLLM_API_KEY.

    Args:
        app: vLLM's ASGI application.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app
        self._wanted = _digest(f"Bearer {os.environ['VLLM_API_KEY']}".encode())

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        """Pass a request on, or answer 401; websockets are closed."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        has_key = len(given) == 1 and hmac.compare_digest(_digest(given[0]), self._wanted)
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif has_key or scope["path"] == OPEN_ROUTE:
            await self._app(scope, receive, send)
        else:
            headers = [(b"content-type", b"application/json"), (b"content-length", b"25")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": b'{"error": "Unauthorized"}'})


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()
