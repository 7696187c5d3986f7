"""Stands before every request: what has come from elsewhere is refused, unless the page is meant to be reached so.

A tunnel that somebody opens without telling the page (ngrok, cloudflared, frp) ends on this machine, so its requests
look like those of this machine's users but for two signs: they name another host, or carry the headers of a proxy. A
web page in the user's own browser that has its name resolve to this machine is caught by the first sign as well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from sentifactory.serving.settings import LOOPBACK

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PROXY_HEADERS = frozenset(
    {b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"cf-connecting-ip", b"cf-ray"}
)
# Gradio's page asks for a script of another host; nothing here needs it.
POLICY = b"script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; object-src 'none'; frame-ancestors 'self'"
REFUSAL = (
    "This page answers its own machine only. To reach it through a tunnel or a proxy, start it with --tunnel and a "
    "password (contexts/tunnels.md).\n本页面只接受本机访问。若要通过隧道或代理访问，请设置密码并加上 --tunnel 启动"
    "（见 contexts/tunnels_zh.md）。\n"
).encode()


def is_from_here(headers: list[tuple[bytes, bytes]]) -> bool:
    """Return whether a request names this machine and has passed no proxy.

    Example:
        >>> is_from_here([(b"host", b"localhost:7860")]), is_from_here([(b"host", b"a.trycloudflare.com")])
        (True, False)
    """
    names = {name.lower() for name, _ in headers}
    hosts = [value.decode("latin-1") for name, value in headers if name.lower() == b"host"]
    if names & PROXY_HEADERS or len(hosts) != 1:
        return False
    try:
        return urlsplit(f"//{hosts[0]}").hostname in LOOPBACK
    except ValueError:
        return False


class PageGuard:
    """ASGI middleware.

    Args:
        app: what stands behind it.
        is_remote: requests from elsewhere are let through (to the password).
    """

    def __init__(self, app: Any, is_remote: bool) -> None:
        self._app = app
        self._is_remote = is_remote

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or hand it on and add the policy to its answer."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif not self._is_remote and not is_from_here(scope["headers"]):
            await _refuse(scope, send)
        else:
            await self._app(scope, receive, _add_policy(send))


def _add_policy(send: Send) -> Send:
    async def send_with_policy(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            added = [(b"content-security-policy", POLICY), (b"x-content-type-options", b"nosniff")]
            message["headers"] = [*message.get("headers", ()), *added]
        await send(message)

    return send_with_policy


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(REFUSAL)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": REFUSAL})
