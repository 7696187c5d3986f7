"""Detects line by line whether a file is in UTF-8, in GBK, or in both: two files concatenated, or rows pasted in.

Only unambiguous lines count: a few bytes may be valid in both encodings, and a line that is valid in neither has a
broken byte. Not covered: files of one line, and mixtures of other encodings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from sentifactory.corpus.files.limits import MAX_ROW_CHARS
from sentifactory.errors import DataError

UTF8, GBK, BROKEN = "UTF-8", "GBK", "broken"
# Characters of three or more bytes in UTF-8: valid sequences of two occur by chance in GB18030.
WIDE = "\u0800"
GOOD_FOR_ONE_BAD = 4
_SURE_CHARS = 4
# Up to this share of GBK lines, a file is in UTF-8, and each of these lines is a rejected row.
_FEW = 0.01


@dataclass(slots=True)
class LineKinds:
    """How many lines of a file are of each kind, and which is the first, from 1; without ASCII and ambiguous lines."""

    counts: dict[str, int]
    first: dict[str, int]

    @property
    def is_mixed(self) -> bool:
        """Whether either encoding would garble or lose many rows."""
        n_utf8, n_gbk = self.counts[UTF8], self.counts[GBK]
        return n_utf8 > 0 and n_gbk > _FEW * (n_utf8 + n_gbk)

    @property
    def is_nearly_gbk(self) -> bool:
        """Whether the file is in GBK and has a few broken bytes."""
        n_gbk = self.counts[GBK]
        return not self.counts[UTF8] and n_gbk > 0 and n_gbk >= GOOD_FOR_ONE_BAD * self.counts[BROKEN]

    def refuse_mixed(self, path: Path) -> None:
        """Raise a DataError for a file in both encodings, with the first line of each."""
        if self.is_mixed:
            kinds = sorted((UTF8, GBK), key=lambda kind: self.first[kind])
            raise DataError(
                f"The file mixes two encodings: {self.counts[UTF8]} lines are in UTF-8 (the first is line "
                f"{self.first[UTF8]}) and {self.counts[GBK]} in GBK (the first is line {self.first[GBK]})",
                where=f"{path}, line {self.first[kinds[1]]}",
                expected="one encoding from the first line to the last",
                next_step="split the file where the encoding changes, and save both parts as UTF-8",
                code="encoding-mixed",
            )


def count_line_kinds(path: Path) -> LineKinds:
    """Count the lines of a file by their encoding."""
    counts = dict.fromkeys((UTF8, GBK, BROKEN), 0)
    first: dict[str, int] = {}
    with path.open("rb") as stream:
        for number, line in enumerate(_iter_lines(stream), start=1):
            if kind := _classify_line(line):
                counts[kind] += 1
                first.setdefault(kind, number)
    return LineKinds(counts, first)


def _iter_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file; an empty one for a line that is too long, which could be cut within a character."""
    for line in iter(partial(stream.readline, MAX_ROW_CHARS), b""):
        if len(line) < MAX_ROW_CHARS:
            yield line
            continue
        while len(line) == MAX_ROW_CHARS and not line.endswith(b"\n"):
            line = stream.readline(MAX_ROW_CHARS)
        yield b""


def _classify_line(line: bytes) -> str | None:
    if line.isascii():
        return None
    shown = line.decode("utf-8", "replace")
    n_wide, n_bad = count_wide(shown)
    if not n_bad:
        n_narrow = sum("\x80" <= char < WIDE for char in shown)
        is_utf8 = n_wide >= 2 and n_wide >= GOOD_FOR_ONE_BAD * n_narrow
        # Three characters or fewer may be GBK as well, if they decode to common characters.
        return UTF8 if is_utf8 and (n_wide >= _SURE_CHARS or not is_decodable(line, "gb2312")) else None
    if not is_decodable(line, "gb18030"):
        return BROKEN
    n_double = sum(char >= "\x80" for char in line.decode("gb18030"))
    n_high = sum(byte >= 0x80 for byte in line)
    # A Western letter pairs with the ASCII letter after it; in Chinese nearly all second bytes are high, too.
    return GBK if n_double >= 2 and 2 * n_high >= 3 * n_double and n_bad >= GOOD_FOR_ONE_BAD * n_wide else None


def count_wide(shown: str) -> tuple[int, int]:
    """Count the characters of three or more bytes and the invalid bytes in a text that was decoded as UTF-8."""
    n_bad = shown.count("\ufffd")
    return sum(char >= WIDE for char in shown) - n_bad, n_bad


def is_decodable(line: bytes, encoding: str) -> bool:
    """Whether all bytes are valid; GB2312 has the 6,763 common characters, both bytes of which are high."""
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
