"""Error answers: {"error": {"status": 413, "code": "text_too_long", "message": "..."}}, of a request or a list item.

Messages name no path, address or line of code.
"""

from __future__ import annotations

import math
from typing import Any

CODES: dict[str, int] = {
    "no_http": 400,
    "no_json": 400,
    "blank_text": 400,
    "broken_text": 400,
    "no_key": 401,
    "not_found": 404,
    "wrong_method": 405,
    "slow_head": 408,
    "slow_body": 408,
    "body_too_large": 413,
    "list_too_long": 413,
    "text_too_long": 413,
    "wrong_type": 415,
    "wrong_host": 421,
    "wrong_form": 422,
    "no_label": 422,
    "not_taught": 422,
    "queue_full": 429,
    "too_many_behind": 429,
    "head_too_large": 431,
    "defect": 500,
    "not_ready": 503,
    "no_place": 503,
    "too_slow": 504,
}


class Problem(Exception):  # noqa: N818 - an answer to the client, not an error of the program
    """An error answer.

    Args:
        code: one of `CODES`, which gives the HTTP status.
        message: what is wrong, for the client; it may quote limits and the request, nothing internal.
        retry_after_s: seconds after which the client may try again, or None.
    """

    def __init__(self, code: str, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = CODES[code]
        self.message = message
        self.retry_after_s = retry_after_s

    def to_dict(self) -> dict[str, Any]:
        """Return the body."""
        return {"error": {"status": self.status, "code": self.code, "message": self.message}}

    def list_headers(self) -> dict[str, str]:
        """Return the headers of the answer."""
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        if self.code == "slow_body":  # the rest of the body is not read
            headers["Connection"] = "close"
        if self.code == "no_key":
            headers["WWW-Authenticate"] = "Bearer"
        return headers
