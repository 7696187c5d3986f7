"""What comes out of gradio to a browser: without leave for other sites, and without the way in which it failed."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from sentifactory.ui.origins import read_header
from sentifactory.ui.uploads import RefusedError
from sentifactory.ui.wording import WORDS

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

# Gradio's page asks for a script of another host; nothing here needs it.
POLICY = b"script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; object-src 'none'; frame-ancestors 'self'"


class CleanAnswer:
    """ASGI's `send`, through which an answer comes out without what gradio should not say.

    Args:
        scope: of the request.
        send: of the server.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self.status: int | None = None  # once it has started
        self.is_whole = False
        self._is_replaced = False
        self._is_stream = False

    async def __call__(self, message: Message) -> None:
        """Send a message: no leave for other sites, cookies for this one alone, one sentence for a failure."""
        if message["type"] != "http.response.start":
            if not self._is_replaced:
                await self._send(message)
                self.is_whole = not message.get("more_body", False)
        elif message["status"] >= 500:
            self._is_replaced = True
            self.status = message["status"]
            await self._send_whole(message["status"], {"detail": _say("failed")})
        else:
            self.status = message["status"]
            kinds = read_header(message.get("headers", ()), b"content-type")
            self._is_stream = any(kind.startswith("text/event-stream") for kind in kinds)
            is_https = self._scope.get("scheme") == "https"
            kept = [
                (name, _confine_cookie(value, is_https) if name.lower() == b"set-cookie" else value)
                for name, value in message.get("headers", ())
                if not name.lower().startswith(b"access-control-")
            ]
            added = [(b"content-security-policy", POLICY), (b"x-content-type-options", b"nosniff")]
            await self._send({**message, "headers": [*kept, *added]})

    async def tell(self, status: int, value: Any) -> None:
        """Answer with JSON."""
        self.status = status
        await self._send_whole(status, value)

    async def end(self, refusal: RefusedError) -> None:
        """Answer with a sentence, where nothing has been answered yet; sent events have said why they end."""
        if self.status is None:
            await self.tell(refusal.status, {"detail": _say(refusal.key)})
        elif self._is_stream and not self.is_whole:
            await self({"type": "http.response.body", "body": b""})

    async def _send_whole(self, status: int, value: Any) -> None:
        # Gradio's own scripts read the sentence out of JSON; people are shown it as it is.
        is_api = self._scope["path"].startswith(("/gradio_api/", "/config", "/login"))
        body = (json.dumps(value, ensure_ascii=False) if is_api else f"{value['detail']}\n").encode()
        kind = b"application/json" if is_api else b"text/plain; charset=utf-8"
        headers = [
            (b"content-type", kind),
            (b"content-length", str(len(body)).encode()),
            (b"content-security-policy", POLICY),
            (b"x-content-type-options", b"nosniff"),
        ]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": b"" if self._scope["method"] == "HEAD" else body})
        self.is_whole = True


def _say(key: str) -> str:
    return "\n".join(WORDS[key])


def _confine_cookie(value: bytes, is_https: bool) -> bytes:
    """Return a cookie that a browser sends to this site alone, and over TLS alone where it has come over TLS."""
    parts = [part.strip() for part in value.split(b";")]
    kept = [part for part in parts if not part.lower().startswith(b"samesite")]
    if is_https and b"secure" not in [part.lower() for part in kept]:
        kept.append(b"Secure")
    return b"; ".join([*kept, b"SameSite=Lax"])
