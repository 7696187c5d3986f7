"""Stands before every request, outside of all that gradio brings, and lets through what the page needs.

A tunnel that somebody opens without telling the page (ngrok, cloudflared, frp) ends on this machine, so its requests
look like those of this machine's users but for two signs: they name another host, or carry the headers of a proxy. A
web page in the user's own browser that has its name resolve to this machine is caught by the first sign as well.

Gradio answers any web site as if it were the page itself, has many routes that the page does not use, looks after some
of them before it looks after the login, and shows how it failed: here all of it is behind a list of routes, a login, a
limit of bytes, and one sentence for whatever fails.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sentifactory.serving.settings import LOOPBACK
from sentifactory.ui.answers import CleanAnswer, Message, Scope, Send
from sentifactory.ui.logins import LoginThrottle
from sentifactory.ui.origins import is_foreign, read_header
from sentifactory.ui.uploads import Receive, RefusedError, Uploads, limit_body

_log = logging.getLogger(__name__)

PROXY_HEADERS = frozenset(
    {b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"cf-connecting-ip", b"cf-ray"}
)
MOST_BODY_BYTES = 4_000_000  # 200 reviews of 2,000 characters, each of them escaped, are 2.4 million
MOST_LOGIN_BYTES = 10_000

# Before the login: what the login page is made of. `startup-events` is what gradio asks itself for once.
_OPEN = re.compile(r"/|/(theme\.css|robots\.txt|favicon\.ico|manifest\.json|logout)|/(static|assets|svelte)/.+"
                   r"|/gradio_api/startup-events")  # fmt: skip
_READ = re.compile(r"/config/?|/gradio_api/(info/?|openapi\.json|app_id/?|heartbeat/[^/]+|queue/(data|status)"
                   r"|call/[^/]+/[^/]+|upload_progress)")  # fmt: skip
_FILE = "/gradio_api/file="
_LOGIN = re.compile(r"/login/?")
_WRITTEN = re.compile(r"/gradio_api/(queue/join|(call|run|api)/[^/]+/?|cancel|reset/?)")
_UPLOAD = "/gradio_api/upload"
_LONGEST_PATH = 250  # longer ones are no files of gradio's
_API_INFO = re.compile(rb"(window\.gradio_api_info = ).*?(;</script>)", re.DOTALL)
_NO_API_INFO = rb'\1{"named_endpoints": {}, "unnamed_endpoints": {}}\2'


def is_from_here(headers: list[tuple[bytes, bytes]]) -> bool:
    """Return whether a request names this machine and has passed no proxy.

    Example:
        >>> is_from_here([(b"host", b"localhost:7860")]), is_from_here([(b"host", b"a.trycloudflare.com")])
        (True, False)
    """
    names = {name.lower() for name, _ in headers}
    hosts = read_header(headers, b"host")
    if names & PROXY_HEADERS or len(hosts) != 1:
        return False
    try:
        return urlsplit(f"//{hosts[0]}").hostname in LOOPBACK
    except ValueError:
        return False


def needs_login(method: str, path: str) -> bool | None:
    """Return whether a route is for those alone who have logged in, None where the page has no such route.

    Example:
        >>> needs_login("GET", "/"), needs_login("POST", "/gradio_api/queue/join"), needs_login("GET", "/monitoring")
        (False, True, None)
    """
    if method in ("GET", "HEAD"):
        if _OPEN.fullmatch(path):
            return False
        return True if _READ.fullmatch(path) or path.startswith(_FILE) else None
    if method != "POST":
        return None
    if _LOGIN.fullmatch(path):
        return False
    return True if _WRITTEN.fullmatch(path) or path == _UPLOAD else None


@dataclass(frozen=True, slots=True)
class PageGuard:
    """ASGI middleware.

    Attributes:
        app: what stands behind it.
        is_remote: requests from elsewhere are let through (to the password).
        uploads: takes the files.
        is_logged_in: whether the headers of a request are those of somebody who may use the page.
        logins: slows those who guess.
    """

    app: Any
    is_remote: bool
    uploads: Uploads
    is_logged_in: Callable[[list[tuple[bytes, bytes]]], bool]
    logins: LoginThrottle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or hand it on and take out of the answer what is nobody's business."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # the page has no such connections
        else:
            answer = CleanAnswer(scope, send)
            try:
                self._check(scope)
                await self._hand_on(scope, receive, answer)
            except RefusedError as refusal:
                await answer.end(refusal)
            except Exception:
                await answer.end(RefusedError(500, "failed"))
                if not answer.is_whole:
                    raise  # the server has to cut the connection
                _log.exception("%s %.200r failed", scope["method"], scope["path"])

    def _check(self, scope: Scope) -> None:
        if not self.is_remote and not is_from_here(scope["headers"]):
            raise RefusedError(403, "elsewhere")
        if is_foreign(scope, is_remote=self.is_remote):
            raise RefusedError(403, "foreign")
        needed = needs_login(scope["method"], scope["path"])
        # Gradio would look for the state of a page below a folder that this names.
        if (
            needed is None
            or len(scope["path"]) > _LONGEST_PATH
            or "deep_link" in parse_qs(scope.get("query_string", b"").decode("latin-1"), True)
        ):
            raise RefusedError(404, "no_route")
        if needed and not self.is_logged_in(scope["headers"]):
            raise RefusedError(401, "no_login")

    async def _hand_on(self, scope: Scope, receive: Receive, answer: CleanAnswer) -> None:
        path = scope["path"]
        if path == _UPLOAD:
            await answer.tell(200, await self.uploads.take(scope, receive))
        elif path.endswith("/upload_progress"):
            raise RefusedError(404, "no_route")  # an upload is one request, and its end is its progress
        elif path.startswith(_FILE):
            from starlette.responses import FileResponse

            file = self.uploads.find(path.removeprefix(_FILE))
            found = FileResponse(file, filename=file.name, media_type="application/octet-stream")
            await found(scope, receive, answer)
        elif _LOGIN.fullmatch(path):
            await self._log_in(scope, receive, answer)
        elif scope["method"] == "POST":
            body = _replace_names(await _read_body(scope, receive, MOST_BODY_BYTES), self.uploads)
            await self.app(_resize(scope, body), _give_again(body, receive), answer)
        elif path == "/" and not self.is_logged_in(scope["headers"]):
            await self._show_login(scope, receive, answer)
        else:
            await self.app(scope, receive, answer)

    async def _show_login(self, scope: Scope, receive: Receive, answer: CleanAnswer) -> None:
        """Show the page that asks for the password, without the models and data sets that gradio writes into it."""
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)

        plain = [(name, value) for name, value in scope["headers"] if name.lower() != b"accept-encoding"]
        await self.app({**scope, "headers": plain}, receive, collect)
        body, n_hidden = _API_INFO.subn(_NO_API_INFO, b"".join(message.get("body", b"") for message in messages))
        if n_hidden != 1 and messages[0]["status"] == 200:
            raise RuntimeError("gradio writes its front page in another way than this guard knows")
        kept = [(name, value) for name, value in messages[0]["headers"] if name.lower() != b"content-length"]
        await answer({**messages[0], "headers": [*kept, (b"content-length", str(len(body)).encode())]})
        await answer({"type": "http.response.body", "body": body})

    async def _log_in(self, scope: Scope, receive: Receive, answer: CleanAnswer) -> None:
        body = await _read_body(scope, receive, MOST_LOGIN_BYTES)
        address = (scope.get("client") or ("",))[0]
        wait_s = self.logins.start(address)
        if wait_s is None:
            raise RefusedError(429, "too_many_logins")
        try:
            await asyncio.sleep(wait_s)
            await self.app(scope, _give_again(body, receive), answer)
        finally:
            self.logins.end(address, is_right=answer.status == 200)


async def _read_body(scope: Scope, receive: Receive, most_bytes: int) -> bytes:
    limited, blocks, is_more = limit_body(scope, receive, most_bytes), [], True
    while is_more:
        message = await limited()
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "broken_request")
        blocks.append(message.get("body", b""))
        is_more = message.get("more_body", False)
    return b"".join(blocks)


def _give_again(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body that was read already, and then whatever comes."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return left.pop() if left else await receive()

    return receive_again


def _resize(scope: Scope, body: bytes) -> Scope:
    """Return the scope with the length that its body has now."""
    kept = [
        (name, value)
        for name, value in scope["headers"]
        if name.lower() not in (b"content-length", b"transfer-encoding", b"content-type")
    ]
    length = (b"content-length", str(len(body)).encode())
    scope["headers"] = [*kept, length, (b"content-type", b"application/json")]
    return scope


def _replace_names(body: bytes, uploads: Uploads) -> bytes:
    """Return what was sent with the places of uploaded files for their names.

    Raises:
        RefusedError: when it is no JSON, or something else than an uploaded file is given for one.
    """

    def replace(value: Any) -> Any:
        if isinstance(value, list):
            return [replace(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "path" in value:
            return {**value, "path": str(uploads.find(str(value["path"]))), "url": None}
        return {key: replace(item) for key, item in value.items()}

    try:
        return json.dumps(replace(json.loads(body))).encode()
    except (ValueError, RecursionError):
        raise RefusedError(400, "broken_request") from None
