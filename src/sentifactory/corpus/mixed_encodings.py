"""Tells by its lines whether a file is in UTF-8, in GBK, or in both: two files put together, or rows pasted in.

A line counts only where it is beyond doubt. Of a handful of bytes both readings may make sense, and a line of neither
has a broken byte. Not covered: files of one line, and mixtures of other encodings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from sentifactory.corpus.limits import MAX_ROW_CHARS
from sentifactory.errors import DataError

UTF8, GBK, BROKEN = "UTF-8", "GBK", "broken"
# Characters of three bytes and more: those of two come about by chance in GB18030.
_WIDE = "\u0800"
_SURE_CHARS = 4
_GOOD_FOR_ONE_BAD = 4
# Up to this share, lines of GBK in a file of UTF-8 are broken rows; each is rejected, for no byte of it fits.
_FEW = 0.01


@dataclass(slots=True)
class LineKinds:
    """How many lines of a file are of each kind, and which is the first, from 1; ASCII and doubtful ones aside."""

    counts: dict[str, int]
    first: dict[str, int]

    @property
    def is_mixed(self) -> bool:
        """Whether neither encoding reads the file without garbling rows, or without losing many."""
        n_utf8, n_gbk = self.counts[UTF8], self.counts[GBK]
        return n_utf8 > 0 and n_gbk > _FEW * (n_utf8 + n_gbk)

    @property
    def is_nearly_gbk(self) -> bool:
        """Whether the file is in GBK and has a few broken bytes."""
        n_gbk = self.counts[GBK]
        return not self.counts[UTF8] and n_gbk > 0 and n_gbk >= _GOOD_FOR_ONE_BAD * self.counts[BROKEN]

    def refuse_mixed(self, path: Path) -> None:
        """Do nothing for a file in one encoding.

        Raises:
            DataError: for one in both, naming the first line of each.
        """
        if self.is_mixed:
            kinds = sorted((UTF8, GBK), key=lambda kind: self.first[kind])
            raise DataError(
                f"The file mixes both encodings: {self.counts[UTF8]} lines are in UTF-8 (the first is line "
                f"{self.first[UTF8]}) and {self.counts[GBK]} in GBK (the first is line {self.first[GBK]})",
                where=f"{path}, line {self.first[kinds[1]]}",
                expected="one encoding from the first line to the last",
                next_step="part the file where the encoding changes, and save both parts as UTF-8",
            )


def judge_lines(path: Path) -> LineKinds:
    """Return how many lines of a file are in which encoding."""
    counts = dict.fromkeys((UTF8, GBK, BROKEN), 0)
    first: dict[str, int] = {}
    with path.open("rb") as stream:
        for number, line in enumerate(_iter_lines(stream), start=1):
            if kind := _judge_line(line):
                counts[kind] += 1
                first.setdefault(kind, number)
    return LineKinds(counts, first)


def _iter_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file; of one that is too long for a row, and may break off in a character, nothing."""
    for line in iter(partial(stream.readline, MAX_ROW_CHARS), b""):
        if len(line) < MAX_ROW_CHARS:
            yield line
            continue
        while len(line) == MAX_ROW_CHARS and not line.endswith(b"\n"):
            line = stream.readline(MAX_ROW_CHARS)
        yield b""


def _judge_line(line: bytes) -> str | None:
    if line.isascii():
        return None
    shown = line.decode("utf-8", "replace")
    n_bad = shown.count("\ufffd")
    n_wide = sum(char >= _WIDE for char in shown) - n_bad
    if not n_bad:
        n_narrow = sum("\x80" <= char < _WIDE for char in shown)
        is_utf8 = n_wide >= 2 and n_wide >= _GOOD_FOR_ONE_BAD * n_narrow
        # Of three characters and fewer, GBK makes sense as well where it reads usual characters.
        return UTF8 if is_utf8 and (n_wide >= _SURE_CHARS or not is_decodable(line, "gb2312")) else None
    if not is_decodable(line, "gb18030"):
        return BROKEN
    n_double = sum(char >= "\x80" for char in line.decode("gb18030"))
    n_high = sum(byte >= 0x80 for byte in line)
    # Western letters pair up with the ASCII letter behind them; in Chinese nearly both bytes are high.
    return GBK if n_double >= 2 and 2 * n_high >= 3 * n_double and n_bad >= _GOOD_FOR_ONE_BAD * n_wide else None


def is_decodable(line: bytes, encoding: str) -> bool:
    """Return whether every byte fits; GB2312 has the 6,763 usual characters, whose both bytes are high."""
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
