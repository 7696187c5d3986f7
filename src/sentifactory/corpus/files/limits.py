"""Size limits for files of reviews, and reading lines within them.

The limits are far above what people write, and far below the memory of a machine. A row that is too long is rejected;
a file that is too large is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TextIO

# Of a review and of a row, in characters.
MAX_TEXT_CHARS = 2_000_000
MAX_ROW_CHARS = 10_000_000
# Excel's own limits.
MAX_SHEET_ROWS = 1_048_576
MAX_SHEET_COLUMNS = 16_384
MAX_SHEETS = 255
# Of an unpacked workbook or Parquet file: up to MAX_RATIO times its size; SURE_UNPACKED_BYTES are always allowed.
SURE_UNPACKED_BYTES = 1 << 25
MAX_UNPACKED_BYTES = 1 << 32
MAX_RATIO = 100
# A JSON document is held in memory as a whole, unlike JSON lines.
MAX_DOCUMENT_BYTES = 1 << 28
# Reading stops when there are this many more broken rows than valid ones.
MAX_BROKEN_ROWS = 100_000
_SHOWN_CHARS = 1000


def find_max_unpacked(n_bytes: int) -> int:
    """Return how many bytes a compressed file of a size may unpack to.

    Example:
        >>> find_max_unpacked(1_000_000)
        100000000
    """
    return max(SURE_UNPACKED_BYTES, min(MAX_UNPACKED_BYTES, MAX_RATIO * n_bytes))


def iter_lines(stream: TextIO) -> Iterator[str]:
    """Yield the lines of a file; of a line longer than the limit only the beginning, for which `is_long` is true."""
    for line in iter(partial(stream.readline, MAX_ROW_CHARS + 1), ""):
        yield line
        while is_long(line) and not line.endswith("\n"):
            line = stream.readline(MAX_ROW_CHARS + 1)


def is_long(line: str) -> bool:
    """Whether a line is longer than a row may be."""
    return len(line) > MAX_ROW_CHARS


def describe_long(what: str, limit: int) -> str:
    """Return the fault of a row or a text that is too long, as a clause."""
    return f"the {what} has more than {limit:,} characters"


def shorten(text: str) -> str:
    """Return a text for display; of one that is too long, the beginning."""
    return text if len(text) <= MAX_TEXT_CHARS else text[:_SHOWN_CHARS] + "…"
