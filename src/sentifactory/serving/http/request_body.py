"""Reads request bodies within limits of size, time and total memory, and parses them as JSON.

FastAPI and uvicorn limit none of these, and FastAPI keeps a body until the request is answered.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, NoReturn

from sentifactory.serving.http.problems import Problem
from sentifactory.serving.service_settings import Limits
from sentifactory.system.json_text import parse_json

if TYPE_CHECKING:
    from starlette.requests import Request

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

JSON_TYPE = "application/json"
RETRY_S = 5.0


class ClientGoneError(Exception):
    """The client has disconnected."""


class BodyReader:
    """Reads the bodies of a service; those that are being received share a limit of memory.

    Args:
        limits: sizes and times.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held_bytes = 0

    async def read(self, request: Request) -> Any:
        """Return the JSON value of a body.

        Raises:
            Problem: when the body has another type, is too large, too slow or not JSON, or memory is short.
            ClientGoneError: when the client disconnects.
        """
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON_TYPE:
            raise Problem("wrong_type", f"the body must be sent as Content-Type: {JSON_TYPE}")
        content = await self.read_bytes(request.receive, request.headers.get("content-length", ""))
        try:
            return parse_json(content.decode("utf-8"), _DECODER)
        except UnicodeDecodeError:
            raise Problem("no_json", "the body is not in UTF-8") from None
        except ValueError:
            raise Problem("no_json", "the body is not JSON") from None

    async def read_bytes(self, receive: Receive, content_length: str, max_bytes: int | None = None) -> bytearray:
        """Return the bytes of a body.

        Args:
            receive: of ASGI.
            content_length: the header; "" where there is none.
            max_bytes: replaces the limit of the service.

        Raises:
            Problem: when the body is too large or too slow, or memory is short.
            ClientGoneError: when the client disconnects.
        """
        content = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_s):
                await self._receive(receive, content_length, content, max_bytes or self._limits.body_bytes)
        except TimeoutError:
            raise Problem("slow_body", f"the body had not arrived after {self._limits.body_s:g} s") from None
        finally:
            self._held_bytes -= len(content)
        return content

    async def _receive(self, receive: Receive, content_length: str, content: bytearray, limit: int) -> None:
        if content_length.isdecimal() and int(content_length[:20]) > limit:
            _refuse_size(limit)
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            piece = message.get("body", b"")
            content += piece
            self._held_bytes += len(piece)
            if len(content) > limit:
                _refuse_size(limit)
            if not message.get("more_body"):
                return
            if self._held_bytes > max(limit, self._limits.held_bytes):
                raise Problem("queue_full", "the service is busy; send the request again later", retry_after_s=RETRY_S)


def _refuse_size(limit: int) -> NoReturn:
    raise Problem("body_too_large", f"the body is larger than {limit} bytes")


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
