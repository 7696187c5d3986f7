"""Parses the records of CSV and TSV files. After a broken record, parsing resumes on the line after its first.

Handles quoted cells with line breaks, and quotes that are never closed, or closed and followed by text. Tab-separated
files are often written without quoting, so that a quote in them that does not enclose a cell is an ordinary character.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator

from sentifactory.corpus.files.limits import MAX_ROW_CHARS, describe_long, shorten
from sentifactory.corpus.files.tables import BrokenRow

# The line that tells Excel the delimiter; after Excel has saved the file, the delimiter follows it.
SEPARATOR_LINE = re.compile('\ufeff*"?sep=([^"\\r\\n])"?\\1*[\\r\\n]*', re.IGNORECASE)
# Where quoted cells begin on more lines of a tab-separated record than this, its quotes are ordinary characters.
_MAX_OPENINGS = 16
_LONG = describe_long("row", MAX_ROW_CHARS)
Record = tuple[int, list[str]] | BrokenRow


class _NeverQuotedError(Exception):
    pass


class _Lines:
    """Iterates over the lines of a file, and can go back to any line of the current record.

    Once a record has failed, every record that is still open at the line of the failure must fail there as well, so it
    is not read that far again. Each line is therefore read a few times at most, whatever the quotes of a file.

    Attributes:
        taken: the lines of the current record.
        number: number of lines read.
    """

    __slots__ = ("_error", "_fails_before", "_n_chars", "_pending", "_stream", "number", "taken")

    def __init__(self, stream: Iterator[str], taken: list[str] | None = None) -> None:
        self._stream = stream
        self._pending: list[str] = []
        self._n_chars = 0
        self._fails_before = 0
        self._error = csv.Error()
        self.taken: list[str] = [] if taken is None else taken
        self.number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        """Return the next line.

        Raises:
            csv.Error: when the current record cannot be valid.
        """
        if not self.taken:
            self._n_chars = 0
        elif self.number < self._fails_before:
            raise self._error
        line = self._pending.pop() if self._pending else next(self._stream)
        self.taken.append(line)
        self.number += 1
        self._n_chars += len(line)
        if self._n_chars > MAX_ROW_CHARS:
            raise csv.Error(_LONG)
        return line

    def give_up(self, error: csv.Error) -> None:
        """Go back to the second line of the record, which failed with an error on its last line."""
        if self.number >= self._fails_before:
            self._error, self._fails_before = error, self.number
        self.go_back_to(1)

    def go_back_to(self, n_taken: int) -> None:
        """Go back to the line after the first `n_taken` lines of the record."""
        rest = self.taken[n_taken:]
        self.number -= len(rest)
        self._pending.extend(reversed(rest))
        del self.taken[n_taken:]


def iter_records(stream: Iterator[str], delimiter: str, taken: list[str] | None = None) -> Iterator[Record]:
    """Yield the line on which each record begins (from 1) and its cells, without blank lines."""
    lines = _Lines(stream, taken)
    try:
        is_stated = SEPARATOR_LINE.fullmatch(next(lines, ""))
    except csv.Error:  # a line that is too long, which the parser reports
        is_stated = None
    if not is_stated:
        lines.go_back_to(0)
    return _iter_tsv(lines) if delimiter == "\t" else _iter_csv(lines, delimiter)


def _iter_csv(lines: _Lines, delimiter: str) -> Iterator[Record]:
    while True:
        records = csv.reader(lines, delimiter=delimiter, strict=True)
        begins_at = lines.number + 1
        lines.taken.clear()
        try:
            for cells in records:
                if cells:
                    yield begins_at, cells
                begins_at = lines.number + 1
                lines.taken.clear()
            return
        except csv.Error as error:
            # Resuming after its first line finds the next valid row, wherever the quote is wrong.
            lines.give_up(error)
            yield BrokenRow(begins_at, _describe_quotes(error), shorten(lines.taken[0].rstrip("\r\n")))


def _describe_quotes(error: csv.Error) -> str:
    if str(error) == _LONG:
        return _LONG
    if "end of data" in str(error):
        return "a quoted cell is never closed"
    return "the quotes of the row do not match; quotes inside a quoted cell must be doubled"


def _iter_tsv(lines: _Lines) -> Iterator[Record]:
    width = 0
    while True:
        lines.taken.clear()
        try:
            line = next(lines, None)
        except csv.Error as error:
            yield BrokenRow(lines.number, str(error), shorten(lines.taken[0]))
            continue
        if line is None:
            return
        begins_at = lines.number
        body = line.rstrip("\r\n")
        if not body:
            continue
        cells = body.split("\t")
        width = width or len(cells)
        if '"' in body:
            cells = _unquote(cells) or _join_quoted(lines, width) or cells
        yield begins_at, cells


def _unquote(cells: list[str]) -> list[str] | None:
    """Return cells without the quotes around them, None if a quote is opened and not closed in its cell."""
    plain = []
    for cell in cells:
        if cell.startswith('"'):
            inside = cell[1:-1].replace('""', "")
            if len(cell) < 2 or not cell.endswith('"') or '"' in inside:
                return None
            cell = cell[1:-1].replace('""', '"')
        plain.append(cell)
    return plain


def _join_quoted(lines: _Lines, width: int) -> list[str] | None:
    """Return the record that begins with the current line and continues on the next ones, None if there is none.

    A line that would be a complete row on its own cannot be part of a cell: the quote was an ordinary character then.
    """

    def iter_own() -> Iterator[str]:
        yield lines.taken[0]
        n_openings = 0
        for line in lines:
            n_openings += '\t"' in line
            if line.count("\t") == width - 1:
                return
            if n_openings > _MAX_OPENINGS:
                raise _NeverQuotedError
            yield line

    try:
        cells = next(csv.reader(iter_own(), delimiter="\t", strict=True))
    except csv.Error as error:
        lines.give_up(error)
        return None
    except _NeverQuotedError:
        cells = []
    if len(cells) == width:
        return cells
    lines.go_back_to(1)
    return None
