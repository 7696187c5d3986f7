"""Reads the body of a request: no more of it than allowed, no longer than allowed, and as JSON alone."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NoReturn

from sentifactory.serving.problems import Problem
from sentifactory.serving.settings import Limits

if TYPE_CHECKING:
    from starlette.requests import Request

JSON_TYPE = "application/json"


class ClientGoneError(Exception):
    """The client has closed the connection."""


async def read_body(request: Request, limits: Limits) -> Any:
    """Return the JSON value of a body.

    Raises:
        Problem: when it is of another type, too large, too slow or no JSON.
        ClientGoneError: when the client goes away in the middle.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON_TYPE:
        raise Problem("wrong_type", f"the body must be sent as Content-Type: {JSON_TYPE}")
    try:
        async with asyncio.timeout(limits.body_s):
            content = await _receive(request, limits.body_bytes)
    except TimeoutError:
        raise Problem("slow_body", f"the body had not come after {limits.body_s:g} s") from None
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise Problem("no_json", "the body is not in UTF-8") from None
    except (ValueError, RecursionError):
        raise Problem("no_json", "the body is no JSON") from None


async def _receive(request: Request, limit: int) -> bytes:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        _refuse_size(limit)
    content = bytearray()
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        content += message.get("body", b"")
        if len(content) > limit:
            _refuse_size(limit)
        if not message.get("more_body"):
            return bytes(content)


def _refuse_size(limit: int) -> NoReturn:
    raise Problem("body_too_large", f"the body is larger than {limit} bytes")


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no JSON")
