"""Reads CSV and TSV files as tables: finds the delimiter and the header, and checks the width of each row.

Delimiters are commas, tabs, semicolons and bars, or what the line `sep=` of Excel states.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NoReturn

from sentifactory.corpus.files.columns import Columns
from sentifactory.corpus.files.delimited_records import SEPARATOR_LINE, Record, iter_records
from sentifactory.corpus.files.encodings import TextFile
from sentifactory.corpus.files.limits import MAX_ROW_CHARS, iter_lines
from sentifactory.corpus.files.tables import BrokenRow, RawRow, Table
from sentifactory.errors import DataError

_DELIMITERS = ",\t;|"
_TAB_SUFFIXES = (".tsv", ".tab", ".xls", ".xlsx", ".xlsm")
_QUOTE_HINT = "put the review in double quotes if it holds a {} or a line break"


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
    """Return the delimiter of a file, the line of its header, and the header.

    Raises:
        DataError: when the file is empty or its header is broken.
    """
    csv.field_size_limit(MAX_ROW_CHARS)  # by default csv refuses cells over 128 KiB
    delimiter = _find_delimiter(text)
    return delimiter, *_read_header(text, delimiter)


def refuse_empty(path: Path) -> NoReturn:
    """Raise the error for a file without a row."""
    raise DataError(
        "The file is empty", where=str(path), expected="a header and reviews, as in label,review", code="file-empty"
    )


def _find_delimiter(text: TextFile) -> str:
    """Return the delimiter in the first line, preferably the usual one for the suffix of the file."""
    with text.open() as stream:
        first = next((line for line in iter_lines(stream) if line.strip()), None)
    if first is None:
        refuse_empty(text.path)
    if stated := SEPARATOR_LINE.fullmatch(first):
        return stated[1]
    usual = "\t" if text.path.suffix.lower() in _TAB_SUFFIXES else ","
    return next((char for char in usual + _DELIMITERS if char in first), usual)


def _read_header(text: TextFile, delimiter: str) -> tuple[int, list[str]]:
    with text.open() as stream:
        first = next(iter_records(iter_lines(stream), delimiter), None)
    if first is None:
        refuse_empty(text.path)
    if isinstance(first, BrokenRow):
        raise DataError(
            f"The header is broken: {first.detail}",
            where=f"{text.path}, line {first.line}",
            expected="column names, as in label,review",
            code="file-header",
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
        delimiter: separates its cells.
        width: number of cells of the header; a row with fewer cells, or with more that are not empty, is broken.
        lines: is updated to the lines of the row that was yielded last, as they are in the file; empty if empty cells
            beyond the header were removed from it.
    """
    with text.open() as stream:
        records = iter_records(iter_lines(stream), delimiter, lines)
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
