"""Security middleware around gradio: allows only the requests that the page needs.

A tunnel that is opened without --tunnel (ngrok, cloudflared, frp) ends on this machine, so that its requests look
local but for two signs: they name another host, or carry headers of a proxy. The first sign also catches DNS
rebinding.

Gradio answers requests of any web site, has many routes that the page does not use, serves some of them before the
login, and shows tracebacks. Therefore this middleware has a list of routes, checks the login, limits the size of
bodies, and answers every error with one sentence.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sentifactory.serving.http.problems import Problem
from sentifactory.serving.http.request_body import BodyReader, ClientGoneError
from sentifactory.system.json_text import parse_json
from sentifactory.system.network_settings import LOOPBACK
from sentifactory.ui.logins import LoginThrottle
from sentifactory.ui.origins import is_foreign, read_header
from sentifactory.ui.page_settings import BODY_LIMITS
from sentifactory.ui.response_filter import Message, ResponseFilter, Scope, Send
from sentifactory.ui.uploads import Receive, RefusedError, Uploads

_log = logging.getLogger(__name__)

PROXY_HEADERS = frozenset(
    {b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"cf-connecting-ip", b"cf-ray"}
)
MAX_LOGIN_BYTES = 10_000

# Without login: what the login page loads. gradio itself requests `startup-events` once.
_OPEN = re.compile(r"/|/(theme\.css|robots\.txt|favicon\.ico|manifest\.json|logout)|/(static|assets|svelte)/.+"
                   r"|/gradio_api/startup-events")  # fmt: skip
_READ = re.compile(r"/config/?|/gradio_api/(info/?|openapi\.json|app_id/?|heartbeat/[^/]+|queue/(data|status)"
                   r"|upload_progress)")  # fmt: skip
_FILE = "/gradio_api/file="
_PROGRESS = "/gradio_api/upload_progress"
_LOGIN = re.compile(r"/login/?")
_WRITTEN = re.compile(r"/gradio_api/(queue/join|run/predict|cancel|reset/?)")
_UPLOAD = "/gradio_api/upload"
_MAX_PATH_CHARS = 250
_KEYS_OF_PROBLEMS = {"slow_body": "broken_request", "body_too_large": "too_large", "queue_full": "too_busy"}
_API_INFO = re.compile(rb"(window\.gradio_api_info = ).*?(;</script>)", re.DOTALL)
_NO_API_INFO = rb'\1{"named_endpoints": {}, "unnamed_endpoints": {}}\2'


def is_from_here(headers: list[tuple[bytes, bytes]]) -> bool:
    """Return whether a request names this machine and has not passed a proxy.

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
    """Return whether a route needs a login; None where the page has no such route.

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
class SecurityMiddleware:
    """ASGI middleware.

    Attributes:
        app: gradio's application.
        is_remote: whether requests from other machines are allowed (with the password).
        uploads: receives the files.
        is_logged_in: returns whether the headers of a request carry a login.
        logins: delays attempts to log in.
        bodies: reads all bodies but uploads.
    """

    app: Any
    is_remote: bool
    uploads: Uploads
    is_logged_in: Callable[[list[tuple[bytes, bytes]]], bool]
    logins: LoginThrottle
    bodies: BodyReader = field(default_factory=lambda: BodyReader(BODY_LIMITS))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or forward it and filter the response."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # the page has no such connections
        else:
            response = ResponseFilter(scope, send)
            try:
                self._check(scope)
                await self._forward(scope, receive, response)
            except RefusedError as refusal:
                await response.refuse(refusal)
            except Exception:
                await response.refuse(RefusedError(500, "failed"))
                if not response.is_complete:
                    raise  # the server has to close the connection
                _log.exception("%s %.200r failed", scope["method"], scope["path"])

    def _check(self, scope: Scope) -> None:
        if not self.is_remote and not is_from_here(scope["headers"]):
            raise RefusedError(403, "elsewhere")
        if is_foreign(scope, is_remote=self.is_remote):
            raise RefusedError(403, "foreign")
        needed = needs_login(scope["method"], scope["path"])
        # With deep_link gradio would read the state of a page from a folder of that name.
        if (
            needed is None
            or len(scope["path"]) > _MAX_PATH_CHARS
            or "deep_link" in parse_qs(scope.get("query_string", b"").decode("latin-1"), True)
        ):
            raise RefusedError(404, "no_route")
        if needed and not self.is_logged_in(scope["headers"]):
            raise RefusedError(401, "no_login")

    async def _forward(self, scope: Scope, receive: Receive, response: ResponseFilter) -> None:
        path = scope["path"]
        if path == _UPLOAD:
            await response.send_json(200, await self.uploads.receive(scope, receive))
        elif path == _PROGRESS:
            await response.send_event({"msg": "done"})  # nobody is told of uploads: each is one short request here
        elif path.startswith(_FILE):
            from starlette.responses import FileResponse

            file = self.uploads.find(path.removeprefix(_FILE))
            download = FileResponse(file, filename=file.name, media_type="application/octet-stream")
            await download(scope, receive, response)
        elif _LOGIN.fullmatch(path):
            await self._log_in(scope, receive, response)
        elif scope["method"] == "POST":
            body = _replace_names(await self._read_body(scope, receive), self.uploads)
            await self.app(_replace_length(scope, body), _replay_body(body, receive), response)
        elif path == "/" and not self.is_logged_in(scope["headers"]):
            await self._show_login(scope, receive, response)
        else:
            await self.app(scope, receive, response)

    async def _show_login(self, scope: Scope, receive: Receive, response: ResponseFilter) -> None:
        """Show the login page without the names of models and data sets that gradio writes into it."""
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)

        plain = [(name, value) for name, value in scope["headers"] if name.lower() != b"accept-encoding"]
        await self.app({**scope, "headers": plain}, receive, collect)
        body, n_hidden = _API_INFO.subn(_NO_API_INFO, b"".join(message.get("body", b"") for message in messages))
        if n_hidden != 1 and messages[0]["status"] == 200:
            raise RuntimeError("gradio's front page does not have the expected form")
        kept = [(name, value) for name, value in messages[0]["headers"] if name.lower() != b"content-length"]
        await response({**messages[0], "headers": [*kept, (b"content-length", str(len(body)).encode())]})
        await response({"type": "http.response.body", "body": body})

    async def _log_in(self, scope: Scope, receive: Receive, response: ResponseFilter) -> None:
        body = await self._read_body(scope, receive, MAX_LOGIN_BYTES)
        address = (scope.get("client") or ("",))[0]
        wait_s = self.logins.start(address)
        if wait_s is None:
            raise RefusedError(429, "too_many_logins")
        try:
            await asyncio.sleep(wait_s)
            await self.app(scope, _replay_body(body, receive), response)
        finally:
            self.logins.end(address, is_right=response.status == 200)

    async def _read_body(self, scope: Scope, receive: Receive, max_bytes: int | None = None) -> bytes:
        length = "".join(read_header(scope["headers"], b"content-length")[:1])
        try:
            return bytes(await self.bodies.read_bytes(receive, length, max_bytes))
        except ClientGoneError:
            raise RefusedError(400, "broken_request") from None
        except Problem as problem:
            raise RefusedError(problem.status, _KEYS_OF_PROBLEMS[problem.code]) from None


def _replay_body(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that returns a body that has been read already, and then further messages."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return left.pop() if left else await receive()

    return receive_again


def _replace_length(scope: Scope, body: bytes) -> Scope:
    """Return the scope with the length of a replaced body."""
    kept = [
        (name, value)
        for name, value in scope["headers"]
        if name.lower() not in (b"content-length", b"transfer-encoding", b"content-type")
    ]
    length = (b"content-length", str(len(body)).encode())
    scope["headers"] = [*kept, length, (b"content-type", b"application/json")]
    return scope


def _replace_names(body: bytes, uploads: Uploads) -> bytes:
    """Return a JSON body with the names of uploaded files replaced by their paths.

    Raises:
        RefusedError: when it is not JSON, or names a file that was not uploaded.
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
        return json.dumps(replace(parse_json(body.decode()))).encode()
    except ValueError:
        raise RefusedError(400, "broken_request") from None
