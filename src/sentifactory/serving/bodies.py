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
RETRY_S = 5.0


class ClientGoneError(Exception):
    """The client has closed the connection."""


class BodyReader:
    """Reads the bodies of a service; all that are coming in together are held to a limit as well.

    Args:
        limits: sizes and times.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held_bytes = 0

    async def read(self, request: Request) -> Any:
        """Return the JSON value of a body.

        Raises:
            Problem: when it is of another type, too large, too slow or no JSON, or there is no memory for it now.
            ClientGoneError: when the client goes away in the middle.
        """
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON_TYPE:
            raise Problem("wrong_type", f"the body must be sent as Content-Type: {JSON_TYPE}")
        content = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_s):
                await self._receive(request, content)
        except TimeoutError:
            raise Problem("slow_body", f"the body had not come after {self._limits.body_s:g} s") from None
        finally:
            self._held_bytes -= len(content)
        try:
            return json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
        except UnicodeDecodeError:
            raise Problem("no_json", "the body is not in UTF-8") from None
        except (ValueError, RecursionError):
            raise Problem("no_json", "the body is no JSON") from None

    async def _receive(self, request: Request, content: bytearray) -> None:
        limit = self._limits.body_bytes
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > limit:
            _refuse_size(limit)
        while True:
            message = await request.receive()
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
    raise ValueError("NaN and Infinity are no JSON")
