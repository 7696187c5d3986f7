"""Reads Excel workbooks as tables, straight from their XML and one row at a time.

The XML shows what the values alone do not: which cells are errors, formulas without a saved result, or merged, and how
a text is escaped. The dimensions that a sheet states are ignored: WPS and export scripts get them wrong.
Not covered: .xls and .xlsb, which are binary, and workbooks with a password.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from sentifactory.corpus.files.columns import LABEL_COLUMNS, TEXT_COLUMNS, Columns, normalise_name
from sentifactory.corpus.files.table_files import describe_broken
from sentifactory.corpus.files.tables import BrokenRow, RawRow, Table, make_row, spell_cell
from sentifactory.corpus.files.workbook_cells import (
    Row,
    Sheet,
    Unusable,
    fill_merges,
    find_merges,
    iter_sheet_rows,
    read_workbook,
)
from sentifactory.corpus.files.workbook_xml import READ_ERRORS, WorkbookArchive
from sentifactory.errors import DataError
from sentifactory.records import Reason
from sentifactory.system.fingerprint import hash_file

_HEADER_ROWS = 10
_Header = tuple[int, list[str]]


def open_excel(path: Path) -> Table:
    """Open the sheet of a workbook that has a text and a label column; lines are row numbers of the sheet.

    Raises:
        DataError: when the workbook is broken, of another format, or more than one sheet could be meant.
    """
    try:
        with WorkbookArchive(path) as archive:
            book = read_workbook(archive)
            headers = [_find_header(iter_sheet_rows(archive, book, sheet)) for sheet in book.sheets]
    except READ_ERRORS as error:
        raise describe_broken("an Excel workbook", path, error) from error
    sheet, (begins_at, header) = _choose_sheet(list(zip(book.sheets, headers, strict=True)), path)

    def iter_rows(columns: Columns) -> Iterator[RawRow | BrokenRow]:
        try:
            with WorkbookArchive(path) as archive:
                merges = find_merges(archive, sheet.part, (columns.text, columns.label, columns.domain))
                rows = fill_merges(iter_sheet_rows(archive, book, sheet), merges)
                yield from _select_cells(rows, begins_at, len(header), columns)
        except READ_ERRORS as error:
            raise describe_broken("an Excel workbook", path, error) from error

    where = f"{path}, sheet {sheet.title!r}, line {begins_at}"
    return Table("excel", None, header, where, False, hash_file(path), iter_rows)


def _find_header(rows: Iterator[Row]) -> tuple[int, list[str]]:
    """Return the row number and the names of the header; (0, []) if the sheet is empty.

    The header is the first row that is not empty, but for a title: a row of one cell above one with several cells.
    """
    first: tuple[int, list[str]] = (0, [])
    for number, cells in islice((row for row in rows if any(cell is not None for cell in row[1])), _HEADER_ROWS):
        names = [spell_cell(cell) or "" for cell in cells]
        while names and not names[-1]:
            names.pop()
        if not first[0]:
            first = number, names
        n_filled = sum(map(bool, names))
        if n_filled > 1 or normalise_name("".join(names)) in TEXT_COLUMNS:
            return number, names
    return first


def _choose_sheet(found: list[tuple[Sheet, _Header]], path: Path) -> tuple[Sheet, _Header]:
    filled = [(sheet, header) for sheet, header in found if header[0]]
    filled = [one for one in filled if not one[0].is_hidden] or filled
    if not filled:
        raise DataError(
            "The workbook is empty",
            where=str(path),
            expected="a header and reviews, as in label | review",
            code="file-empty",
        )
    if len(filled) == 1:
        return filled[0]
    usable = [
        one
        for one in filled
        if all({*map(normalise_name, one[1][1])} & {*known} for known in (TEXT_COLUMNS, LABEL_COLUMNS))
    ]
    if len(usable) != 1:
        raise DataError(
            f"The workbook has {len(filled)} sheets with data: {', '.join(repr(one[0].title) for one in filled[:10])}",
            where=str(path),
            expected="one sheet with a text and a label column",
            next_step="save that sheet as CSV in UTF-8, or in a workbook of its own",
            code="workbook-sheets",
        )
    return usable[0]


def _select_cells(rows: Iterator[Row], header_at: int, width: int, columns: Columns) -> Iterator[RawRow | BrokenRow]:
    for number, cells in rows:
        if number <= header_at:
            continue
        row = [*cells, *[None] * (width - len(cells))]
        if any(cell is not None for cell in row[width:]):
            yield BrokenRow(number, f"the row has cells beyond the {width} of the header", _show_row(row))
            continue
        text, label = row[columns.text], row[columns.label]
        domain = "" if columns.domain is None else row[columns.domain]
        if isinstance(text, Unusable):
            yield BrokenRow(number, f"the text is {text.what}", _show_row(row))
        elif isinstance(label, Unusable):
            shown = spell_cell(text) or ""
            is_blank = not shown or shown.isspace()
            no_label = BrokenRow(number, f"the label is {label.what}", shown, Reason.NO_LABEL)
            yield RawRow(number, shown, "", "") if is_blank else no_label
        else:
            yield make_row(number, text, label, "" if isinstance(domain, Unusable) else domain)


def _show_row(row: Sequence[Any]) -> str:
    return " | ".join(cell.what if isinstance(cell, Unusable) else str(cell) for cell in row if cell is not None)
