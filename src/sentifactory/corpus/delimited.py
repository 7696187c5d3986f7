"""Reads CSV and TSV row by row. A row that is broken is told, and reading goes on with the line after its first.

Covered: commas, tabs, semicolons and bars between cells, and what Excel's line `sep=` states; quoted cells with line
breaks; a quote that is never closed, or closed and followed by text; cells too many or too few. Tab-separated files
are often written without quoting, so in them a quote that does not make sense as a quote is a character like others.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NoReturn

from sentifactory.corpus.columns import Columns
from sentifactory.corpus.encodings import TextFile
from sentifactory.corpus.limits import MAX_ROW_CHARS, describe_long, iter_lines, shorten
from sentifactory.corpus.tables import BrokenRow, RawRow, Table
from sentifactory.errors import DataError

_DELIMITERS = ",\t;|"
_TABBED = (".tsv", ".tab", ".xls", ".xlsx", ".xlsm")
# The line by which Excel learns what separates the cells; saved again, it has that sign behind it.
_SEPARATOR_LINE = re.compile('\ufeff*"?sep=([^"\\r\\n])"?\\1*[\\r\\n]*', re.IGNORECASE)
# A record of a tab-separated file in which quoted cells are opened on more lines than this was never quoted.
_MOST_OPENINGS = 16
_LONG = describe_long("row", MAX_ROW_CHARS)
_QUOTE_HINT = "put the review in double quotes if it holds a {} or a line break"

Record = tuple[int, list[str]] | BrokenRow


def open_delimited(text: TextFile) -> Table:
    """Open a CSV or TSV file.

    Raises:
        DataError: when it is empty.
    """
    delimiter, begins_at, header = read_layout(text)
    kind = {",": "csv", "\t": "tsv"}.get(delimiter, f"csv separated by {delimiter}")
    return Table(
        format=kind,
        encoding=text.encoding,
        header=header,
        header_at=f"{text.path}, line {begins_at}",
        is_sound=text.is_sound,
        sha256=text.sha256,
        iter_rows=partial(_iter_rows, text, delimiter, len(header)),
    )


def read_layout(text: TextFile) -> tuple[str, int, list[str]]:
    """Return what separates the cells of a file, the line of its header, and the header.

    Raises:
        DataError: when the file is empty or its header is broken.
    """
    csv.field_size_limit(MAX_ROW_CHARS)  # csv refuses cells over 128 KiB by default; a long review is still a review
    delimiter = _find_delimiter(text)
    return delimiter, *_read_header(text, delimiter)


def refuse_empty(path: Path) -> NoReturn:
    """Raise the error for a file without a row."""
    raise DataError("The file is empty", where=str(path), expected="a header and reviews, as in label,review")


def _find_delimiter(text: TextFile) -> str:
    """Return what separates the cells of the first line: what the ending of the file promises, if it is there."""
    with text.open() as stream:
        first = next((line for line in iter_lines(stream) if line.strip()), None)
    if first is None:
        refuse_empty(text.path)
    if stated := _SEPARATOR_LINE.fullmatch(first):
        return stated[1]
    promised = "\t" if text.path.suffix.lower() in _TABBED else ","
    return next((char for char in promised + _DELIMITERS if char in first), promised)


def _read_header(text: TextFile, delimiter: str) -> tuple[int, list[str]]:
    with text.open() as stream:
        first = next(_iter_records(iter_lines(stream), delimiter), None)
    if first is None:
        refuse_empty(text.path)
    if isinstance(first, BrokenRow):
        raise DataError(
            f"The header is broken: {first.detail}",
            where=f"{text.path}, line {first.line}",
            expected="column names, as in label,review",
        )
    return first


def _iter_rows(text: TextFile, delimiter: str, width: int, columns: Columns) -> Iterator[RawRow | BrokenRow]:
    for record in iter_whole_rows(text, delimiter, width):
        if isinstance(record, BrokenRow):
            yield record
            continue
        line, cells = record
        domain = "" if columns.domain is None else cells[columns.domain]
        yield RawRow(line, cells[columns.text], cells[columns.label], domain)


def iter_whole_rows(text: TextFile, delimiter: str, width: int, lines: list[str] | None = None) -> Iterator[Record]:
    """Yield the line on which each row below the header begins (from 1) and all its cells.

    Args:
        text: the file.
        delimiter: what separates its cells.
        width: how many cells the header has; a row of fewer, or of more that are not empty, is broken.
        lines: always holds the lines of the row that was yielded last, as they stand in the file; none where empty
            cells beyond the header were cut off it.
    """
    with text.open() as stream:
        records = _iter_records(iter_lines(stream), delimiter, lines)
        next(records)
        for record in records:
            if isinstance(record, BrokenRow):
                yield record
                continue
            line, cells = record
            if len(cells) != width and (len(cells) < width or any(cells[width:])):
                yield _describe_ragged(line, cells, width, delimiter)
            else:
                if lines is not None and len(cells) > width:
                    lines.clear()
                yield line, cells[:width]


def _describe_ragged(line: int, cells: list[str], width: int, delimiter: str) -> BrokenRow:
    name = {",": "comma", "\t": "tab", ";": "semicolon"}.get(delimiter, delimiter)
    counts = f"the row has {len(cells)} cell{'s' * (len(cells) != 1)} and the header has {width}"
    return BrokenRow(line, f"{counts}; {_QUOTE_HINT.format(name)}", delimiter.join(cells))


class _NeverQuotedError(Exception):
    pass


class _Lines:
    """Hands out the lines of a file, and can hand out again those of the record that is being read.

    Within an open quote nothing counts but what comes: once a record that began further up went wrong, every one that
    is open where that one was goes wrong as well, and is not read to its end. So each line is handed out a few times
    at most, however often the quotes of a file go wrong.
    """

    __slots__ = ("_again", "_doom", "_doomed_to", "_n_chars", "_stream", "number", "taken")

    def __init__(self, stream: Iterator[str], taken: list[str] | None = None) -> None:
        self._stream = stream
        self._again: list[str] = []
        self._n_chars = 0
        self._doomed_to = 0
        self._doom = csv.Error()
        self.taken: list[str] = [] if taken is None else taken
        self.number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        """Return the next line.

        Raises:
            csv.Error: when the record that is being read cannot end well.
        """
        if not self.taken:
            self._n_chars = 0
        elif self.number < self._doomed_to:
            raise self._doom
        line = self._again.pop() if self._again else next(self._stream)
        self.taken.append(line)
        self.number += 1
        self._n_chars += len(line)
        if self._n_chars > MAX_ROW_CHARS:
            raise csv.Error(_LONG)
        return line

    def give_up(self, error: csv.Error) -> None:
        """Hand out again all lines of the record but the first, for the fault that was found on the last one."""
        if self.number >= self._doomed_to:
            self._doom, self._doomed_to = error, self.number
        self.go_back_to(1)

    def go_back_to(self, n_taken: int) -> None:
        """Hand out again all lines of the record but the first `n_taken`."""
        rest = self.taken[n_taken:]
        self.number -= len(rest)
        self._again.extend(reversed(rest))
        del self.taken[n_taken:]


def _iter_records(stream: Iterator[str], delimiter: str, taken: list[str] | None = None) -> Iterator[Record]:
    """Yield the line on which each record begins (from 1) and its cells; blank lines are no records."""
    lines = _Lines(stream, taken)
    try:
        is_stated = _SEPARATOR_LINE.fullmatch(next(lines, ""))
    except csv.Error:  # a line that is too long, which will be told
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
            # Reading on after its first line finds the next sound row again, wherever the quote went wrong.
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
    """Return cells without the quotes around them, or None where a quote is opened and not closed in its cell."""
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
    """Return the record that begins with the line just taken and goes on over others, or None where none does.

    A line that would be a whole row on its own is no part of a cell: then the quote was a character of the review.
    """

    def iter_own() -> Iterator[str]:
        yield lines.taken[0]
        n_openings = 0
        for line in lines:
            n_openings += '\t"' in line
            if line.count("\t") == width - 1:
                return
            if n_openings > _MOST_OPENINGS:
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
