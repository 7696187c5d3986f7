"""Filters gradio's responses: no access for other sites, no details of errors."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from sentifactory.ui.origins import read_header
from sentifactory.ui.page_words import WORDS
from sentifactory.ui.uploads import RefusedError

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

# Gradio's page loads a script from another host, which is not needed here and is taken out.
_FOREIGN_SCRIPT = re.compile(rb"<script[^>]*\bsrc=\"https?://[^\"]*\"[^>]*>\s*</script>")
POLICY = b"script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; object-src 'none'; frame-ancestors 'self'"
_ADDED = [(b"content-security-policy", POLICY), (b"x-content-type-options", b"nosniff")]


class ResponseFilter:
    """An ASGI `send` that filters gradio's response.

    Args:
        scope: of the request.
        send: of the server.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self.status: int | None = None  # once the response has started
        self.is_complete = False
        self._is_replaced = False
        self._is_stream = False
        self._page_start: Message | None = None  # of an HTML page, until its body is complete
        self._page = b""

    async def __call__(self, message: Message) -> None:
        """Send a message without CORS headers, with cookies for this site alone, and errors as one sentence."""
        if message["type"] != "http.response.start":
            if self._page_start is not None:
                await self._send_page(message)
            elif not self._is_replaced:
                await self._send(message)
                self.is_complete = not message.get("more_body", False)
        elif message["status"] >= 500:
            self._is_replaced = True
            await self.send_json(message["status"], {"detail": _say("failed")})
        else:
            self.status = message["status"]
            kinds = read_header(message.get("headers", ()), b"content-type")
            self._is_stream = any(kind.startswith("text/event-stream") for kind in kinds)
            is_https = self._scope.get("scheme") == "https"
            kept = [
                (name, _confine(name.lower(), value, is_https))
                for name, value in message.get("headers", ())
                if not name.lower().startswith(b"access-control-")
            ]
            start = {**message, "headers": [*kept, *_ADDED]}
            if self._scope["method"] == "GET" and any(kind.startswith("text/html") for kind in kinds):
                self._page_start = start
            else:
                await self._send(start)

    async def _send_page(self, message: Message) -> None:
        """Send an HTML page without scripts of other hosts, once it is complete."""
        self._page += message.get("body", b"")
        if self._page_start is None or message.get("more_body", False):
            return
        body = _FOREIGN_SCRIPT.sub(b"", self._page)
        headers = [one for one in self._page_start["headers"] if one[0].lower() != b"content-length"]
        length = (b"content-length", str(len(body)).encode())
        await self._send({**self._page_start, "headers": [*headers, length]})
        await self._send({"type": "http.response.body", "body": body})
        self._page_start, self.is_complete = None, True

    async def send_json(self, status: int, value: Any) -> None:
        """Respond with a value as JSON to gradio's scripts, with its sentence as plain text to a person."""
        self.status = status
        is_api = self._scope["path"].startswith(("/gradio_api/", "/config", "/login"))
        body = (json.dumps(value, ensure_ascii=False) if is_api else f"{value['detail']}\n").encode()
        kind = b"application/json" if is_api else b"text/plain; charset=utf-8"
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *_ADDED]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": b"" if self._scope["method"] == "HEAD" else body})
        self.is_complete = True

    async def send_event(self, value: Any) -> None:
        """Respond with a stream of one event."""
        headers = [(b"content-type", b"text/event-stream")]
        await self({"type": "http.response.start", "status": 200, "headers": headers})
        await self({"type": "http.response.body", "body": f"data: {json.dumps(value)}\n\n".encode()})

    async def refuse(self, refusal: RefusedError) -> None:
        """Respond with a sentence where no response has started; end a stream of events, which has sent the reason."""
        if self.status is None:
            await self.send_json(refusal.status, {"detail": _say(refusal.key)})
        elif self._is_stream and not self.is_complete:
            await self({"type": "http.response.body", "body": b""})


def _say(key: str) -> str:
    return "\n".join(WORDS[key])


def _confine(name: bytes, value: bytes, is_https: bool) -> bytes:
    """Return the value of a header, restricted to this site."""
    if name == b"location":  # gradio copies the host from the request, where it may be forged
        return b"/" + urlsplit(value).path.lstrip(b"/")
    return _confine_cookie(value, is_https) if name == b"set-cookie" else value


def _confine_cookie(value: bytes, is_https: bool) -> bytes:
    """Return a cookie that a browser sends to this site alone, and over TLS alone where it was set over TLS."""
    parts = [part.strip() for part in value.split(b";")]
    kept = [part for part in parts if not part.lower().startswith(b"samesite")]
    if is_https and b"secure" not in [part.lower() for part in kept]:
        kept.append(b"Secure")
    return b"; ".join([*kept, b"SameSite=Lax"])
