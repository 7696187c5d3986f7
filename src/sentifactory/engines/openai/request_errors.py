"""Turns failed requests to an OpenAI-compatible address into errors, and tells transient failures from others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sentifactory.errors import ConfigError, EngineError
from sentifactory.records import Review
from sentifactory.system.network_settings import find_proxy_variable

if TYPE_CHECKING:
    import httpx

_ENDPOINTS = ("/chat/completions", "/completions", "/models", "/classify")
_TOO_LONG = re.compile(r"context (length|size)|maximum (model|input|context)|too (long|many tokens)", re.IGNORECASE)
LONGER_CONTEXT = (
    "serve the model with a longer context (vLLM: --max-model-len, llama.cpp: --ctx-size, Ollama: num_ctx)"
)
# Only the evaluation lets its user choose the mode.
OTHER_MODES = "`sentifactory eval compare` also takes --mode generate and --mode constrain"
_STATUS_NO_ACCESS = (401, 403)
_STATUS_NOT_FOUND = 404
_STATUS_BAD_REQUEST = (400, 413, 422)
_STATUS_TRANSIENT = (408, 409, 425, 429)
_STATUS_SERVER = 500
_STATUS_UNAVAILABLE = 503
_STATUS_NOT_IMPLEMENTED = 501


class ReviewRefusedError(EngineError):
    """The server cannot answer this one review, because it is too long for the model; others are not affected.

    Args:
        review: the review.
        what: as in `SentiFactoryError`.
        next_step: likewise.
    """

    code = "review-refused"

    def __init__(self, review: Review, what: str, next_step: str) -> None:
        where = str(review.source) if review.source else f"the review that begins with {review.text[:20]!r}"
        super().__init__(what, where=where, next_step=next_step)


class AnswerFormError(ReviewRefusedError):
    """The server writes the answer to this one review in a form that cannot be scored."""

    code = "answer-form"


def normalise_address(address: str) -> str:
    """Return the base URL of an OpenAI-compatible server, without a final slash or an endpoint.

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
            f"{address!r} is not a valid address",
            expected="http://HOST:PORT/v1 or https://HOST/v1",
            next_step="correct the address",
            code="server-address",
        )
    return base if parts.path.strip("/") else f"{base.rstrip('/')}/v1"


def is_transient_status(status: int) -> bool:
    """Return whether a request that got this HTTP status may succeed when retried."""
    return status in _STATUS_TRANSIENT or (status >= _STATUS_SERVER and status != _STATUS_NOT_IMPLEMENTED)


def read_retry_after(response: httpx.Response) -> float | None:
    """Return the seconds that a server asks us to wait, or None."""
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def read_message(response: httpx.Response) -> str:
    """Return a server's explanation of a refusal, at most 300 characters."""
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
        return EngineError(f"This is not an http address ({error})", where=url, code="server-address")
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
        if variable := find_proxy_variable(url):
            return EngineError(
                f"The proxy of {variable} does not reach the server{tried} ({error or type(error).__name__})",
                where=url,
                next_step=f"check the proxy, or add the server's host to no_proxy or unset {variable}; then check "
                "that the server is running",
                code="server-unreachable",
            )
        return EngineError(
            f"The server cannot be reached{tried} ({error or type(error).__name__})",
            where=url,
            next_step="start the server, wait until it is ready, and check host and port",
            code="server-unreachable",
        )
    if isinstance(error, httpx.TimeoutException):
        return EngineError(
            f"The server did not answer in time{tried}",
            where=url,
            next_step="allow a longer time-out or fewer concurrent requests",
            code="server-unreachable",
        )
    return EngineError(
        f"The connection broke{tried} ({error or type(error).__name__})",
        where=url,
        next_step="check the server's log; the server may have ended",
        code="server-unreachable",
    )


def describe_refusal(response: httpx.Response, url: str, review: Review | None, attempt: int) -> EngineError:
    """Return the error for a response that is not a success."""
    status = response.status_code
    message = read_message(response)
    if status in _STATUS_NO_ACCESS:
        return EngineError(
            f"The server denies access (HTTP {status}: {message})",
            where=url,
            next_step="set SENTIFACTORY_API_KEY to the key of this server",
            code="server-access",
        )
    if status == _STATUS_NOT_FOUND and "model" in message.lower():
        return EngineError(
            f"The server does not know the model ({message})",
            where=url,
            next_step="use the name of a model that it serves",
            code="server-model",
        )
    if status == _STATUS_NOT_FOUND:
        return EngineError(
            f"This address has no OpenAI-compatible API (HTTP {status}: {message})",
            where=url,
            expected="the address of an OpenAI-compatible server",
            next_step="check the address; that of vLLM, llama.cpp or Ollama is http://HOST:PORT/v1",
            code="server-address",
        )
    if review is not None and status in _STATUS_BAD_REQUEST and _TOO_LONG.search(message):
        return ReviewRefusedError(review, message, LONGER_CONTEXT)
    if status == _STATUS_UNAVAILABLE and "loading" in message.lower():
        return EngineError(
            f"The server is still loading its model ({message})",
            where=url,
            next_step="wait until it is ready, and run the same command again",
            code="server-loading",
        )
    if not is_transient_status(status):
        return EngineError(
            f"The server refused the request (HTTP {status}: {message})",
            where=url,
            next_step="check the address and the server's log",
            code="server-refused",
        )
    tried = f", {attempt + 1} times" if attempt else ""
    return EngineError(
        f"The server refused the request (HTTP {status}{tried}: {message})",
        where=url,
        next_step="check the server's log",
        code="server-answer",
    )
