"""How large what is read may be: every limit on files of reviews, and the reading of lines that keeps to them.

The limits are far above what people write, and far below what fills the memory of a machine. What is too long within
an otherwise sound file rejects its row; what is too large as a whole refuses the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, TextIO

# Of a review, and of all of its row, in characters.
MAX_TEXT_CHARS = 2_000_000
MAX_ROW_CHARS = 10_000_000
# What Excel has room for.
MAX_SHEET_ROWS = 1_048_576
MAX_SHEET_COLUMNS = 16_384
MAX_SHEETS = 255
# Of a workbook or Parquet file, unpacked: so many times its size, whatever is below the first figure being well.
SURE_UNPACKED_BYTES = 1 << 25
MAX_UNPACKED_BYTES = 1 << 32
MAX_RATIO = 100
# A JSON document is held in memory as a whole; JSON lines are not.
MAX_DOCUMENT_BYTES = 1 << 28
# How deep the lists and objects of JSON may stand within one another.
MAX_DEPTH = 100
# So many more broken rows than sound ones, and no more of the file is read.
MAX_BROKEN_ROWS = 100_000
_SHOWN_CHARS = 1000


def find_max_unpacked(n_bytes: int) -> int:
    """Return how many bytes a packed file of so many bytes may unpack to.

    Example:
        >>> find_max_unpacked(1_000_000)
        100000000
    """
    return max(SURE_UNPACKED_BYTES, min(MAX_UNPACKED_BYTES, MAX_RATIO * n_bytes))


def iter_lines(stream: TextIO) -> Iterator[str]:
    """Yield the lines of a file; of one longer than a row may be only the beginning, by which `is_long` knows it."""
    for line in iter(partial(stream.readline, MAX_ROW_CHARS + 1), ""):
        yield line
        while is_long(line) and not line.endswith("\n"):
            line = stream.readline(MAX_ROW_CHARS + 1)


def is_long(line: str) -> bool:
    """Return whether a line is longer than a row may be."""
    return len(line) > MAX_ROW_CHARS


def describe_long(what: str, limit: int) -> str:
    """Return what is wrong with a row or a text that is too long, as a clause."""
    return f"the {what} has more than {limit:,} characters"


def shorten(text: str) -> str:
    """Return a text as it is shown; of one that is too long, its beginning."""
    return text if len(text) <= MAX_TEXT_CHARS else text[:_SHOWN_CHARS] + "…"


def check_depth(value: Any, written: str) -> None:
    """Do nothing for a value that all that goes through it by recursion can go through.

    Raises:
        RecursionError: for one that is nested deeper.
    """
    if written.count("[") + written.count("{") <= MAX_DEPTH:
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
    raise RecursionError
