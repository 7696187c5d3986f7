"""Reads untrusted JSON: truncated, malformed or too deeply nested text raises ValueError.

All JSON that the current process did not write itself is parsed here. Nesting is limited, because deep nesting ends
Python's parser, or later recursion over the value, with a RecursionError.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

# Most levels of nested lists and objects.
MAX_DEPTH = 100
_DECODER = json.JSONDecoder()


class DeepJsonError(ValueError):
    """The JSON is nested more than `MAX_DEPTH` levels deep."""

    def __init__(self) -> None:
        super().__init__("it is nested too deep")


def parse_json(text: str, decoder: json.JSONDecoder = _DECODER) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: when it is not JSON (`json.JSONDecodeError`), has a number of thousands of digits, or is nested too
            deep (`DeepJsonError`).
    """
    try:
        value = decoder.decode(text)
    except RecursionError:
        raise DeepJsonError from None
    _check_depth(value, text.count("[") + text.count("{"))
    return value


def parse_json_at(text: str, position: int, decoder: json.JSONDecoder = _DECODER) -> tuple[Any, int]:
    """Return the value that starts at a position, and the position after it; raises what `parse_json` raises."""
    try:
        value, end = decoder.raw_decode(text, position)
    except RecursionError:
        raise DeepJsonError from None
    _check_depth(value, text.count("[", position, end) + text.count("{", position, end))
    return value, end


def read_json(path: str | Path) -> Any:
    """Return the value of a UTF-8 JSON file.

    Raises:
        OSError: when it cannot be read.
        ValueError: when it is not UTF-8, and as `parse_json` does.
    """
    return parse_json(Path(path).read_text(encoding="utf-8"))


def read_json_object(path: str | Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None if the file cannot be read or holds something else."""
    try:
        with open(path, encoding="utf-8", opener=_open_at_once) as stream:
            content = parse_json(stream.read()) if stat.S_ISREG(os.fstat(stream.fileno()).st_mode) else None
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _check_depth(value: Any, n_opened: int) -> None:
    """Raise DeepJsonError if a value is nested too deep for recursive code."""
    if n_opened <= MAX_DEPTH:
        return
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, list | dict)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, list | dict)
        ]
        if not level:
            return
    raise DeepJsonError


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)  # do not block on a pipe without a writer
