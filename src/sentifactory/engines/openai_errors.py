"""What can go wrong with an OpenAI-compatible address, in sentences: which failures pass, and which do not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sentifactory.errors import ConfigError, EngineError
from sentifactory.network_settings import name_proxy_of
from sentifactory.records import Review

if TYPE_CHECKING:
    import httpx

_ENDPOINTS = ("/chat/completions", "/completions", "/models", "/classify")
_TOO_LONG = re.compile(r"context length|maximum (model|input|context)|too (long|many tokens)", re.IGNORECASE)
_STATUS_NO_ACCESS = (401, 403)
_STATUS_NOT_FOUND = 404
_STATUS_BAD_REQUEST = (400, 413, 422)
_STATUS_PASSING = (408, 409, 425, 429)
_STATUS_SERVER = 500
_STATUS_NOT_IMPLEMENTED = 501


class ReviewRefusedError(EngineError):
    """The server refuses this one review, because it is too long for the model."""


def normalise_address(address: str) -> str:
    """Return the base of an OpenAI-compatible interface, without a final slash or the name of an endpoint.

    Raises:
        ConfigError: when it is not an http address.

    Example:
        >>> normalise_address("http://127.0.0.1:8000")
        'http://127.0.0.1:8000/v1'
    """
    base = address.strip().rstrip("/")
    for endpoint in _ENDPOINTS:
        base = base.removesuffix(endpoint)
    try:
        parts = urlsplit(base)
        is_valid = (
            parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ConfigError(
            f"{address!r} is not an address",
            expected="http://HOST:PORT/v1 or https://HOST/v1",
            next_step="correct the address",
        )
    return base if parts.path.strip("/") else f"{base.rstrip('/')}/v1"


def is_passing_status(status: int) -> bool:
    """Return whether a request that got this HTTP status may succeed when it is sent again."""
    return status in _STATUS_PASSING or (status >= _STATUS_SERVER and status != _STATUS_NOT_IMPLEMENTED)


def read_retry_after(response: httpx.Response) -> float | None:
    """Return the seconds that a server asks us to wait, or None when it names none."""
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def read_message(response: httpx.Response) -> str:
    """Return the words in which a server explains a refusal, at most 300 characters of them."""
    try:
        body = response.json()
        error = body.get("error", body)
        message = (error.get("message") or error.get("detail")) if isinstance(error, dict) else error
        return " ".join(str(message or body).split())[:300].rstrip(".")
    except (ValueError, AttributeError):
        return " ".join(response.text.split())[:300].rstrip(".")


def describe_transport(error: httpx.TransportError, url: str, attempt: int) -> EngineError:
    """Return the error for a request that got no response."""
    import httpx

    tried = f" after {attempt + 1} attempts" if attempt else ""
    if isinstance(error, httpx.UnsupportedProtocol):
        return EngineError(f"This is no http address ({error})", where=url)
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
        if variable := name_proxy_of(url):
            return EngineError(
                f"No server can be reached{tried} through the proxy of {variable} ({error or type(error).__name__})",
                where=url,
                next_step=f"check that proxy, or name the server's host in no_proxy or unset {variable} to reach it "
                "directly; then check that the server runs",
            )
        return EngineError(
            f"No server can be reached{tried} ({error or type(error).__name__})",
            where=url,
            next_step="start the server, wait until it is ready, and check host and port",
        )
    if isinstance(error, httpx.TimeoutException):
        return EngineError(
            f"The server did not answer in time{tried}",
            where=url,
            next_step="allow a longer time-out or fewer requests at once",
        )
    return EngineError(
        f"The connection broke{tried} ({error or type(error).__name__})",
        where=url,
        next_step="look into the server's log; it may have ended",
    )


def describe_refusal(response: httpx.Response, url: str, review: Review | None, attempt: int) -> EngineError:
    """Return the error for a response that is not a success."""
    status = response.status_code
    message = read_message(response)
    if status in _STATUS_NO_ACCESS:
        return EngineError(
            f"The server does not let us in (HTTP {status}: {message})",
            where=url,
            next_step="set SENTIFACTORY_API_KEY to the key of this server",
        )
    if status == _STATUS_NOT_FOUND and "model" in message.lower():
        return EngineError(
            f"The server does not know the model ({message})", where=url, next_step="name one it serves"
        )
    if status == _STATUS_NOT_FOUND:
        return EngineError(
            f"Nothing of the OpenAI interface is at this address (HTTP {status}: {message})",
            where=url,
            expected="the address of an OpenAI-compatible server",
            next_step="check the address; vLLM's is http://HOST:PORT/v1",
        )
    if review is not None and status in _STATUS_BAD_REQUEST and _TOO_LONG.search(message):
        where = str(review.source) if review.source else f"the review that begins {review.text[:20]!r}"
        return ReviewRefusedError(message, where=where, next_step="serve the model with a longer max_model_len")
    tried = f", {attempt + 1} times" if attempt else ""
    return EngineError(
        f"The server refuses (HTTP {status}{tried}: {message})", where=url, next_step="look into the server's log"
    )
