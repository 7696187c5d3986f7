"""Reads the rows and cells of a sheet: values, errors, dates, formulas without a saved result, merged cells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

from sentifactory.corpus.files.limits import MAX_SHEET_COLUMNS, MAX_SHEET_ROWS, MAX_SHEETS
from sentifactory.corpus.files.workbook_xml import (
    CHUNK_BYTES,
    WorkbookArchive,
    find_child,
    get_name,
    iter_elements,
    read_text,
    unescape,
)

# ECMA-376, 18.8.30: the built-in formats of dates and times, those of East Asia included.
_DATE_FORMATS = frozenset({*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)})
_NO_LETTERS = re.compile(r'"[^"]*"|\[[^\]]*\]|\\.|_.')  # in a format code: quoted words, colours, escaped characters
_DATE_LETTERS = re.compile("[ymdhs]", re.IGNORECASE)
_RANGE = re.compile("([A-Za-z]+)([0-9]+):[A-Za-z]+([0-9]+)")
_BEFORE_A = ord("A") - 1
_MERGE_SIGN = b"mergeCell"
Row = tuple[int, list[Any]]


class Unusable(NamedTuple):
    """The content of a cell without a readable value, as in "the label is the error #N/A"."""

    what: str


_NO_RESULT = Unusable("a formula whose result is not saved")
_DATE = Unusable("a date")


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet of a workbook.

    Attributes:
        title: its visible name.
        part: its file in the archive.
        is_hidden: whether Excel hides it.
    """

    title: str
    part: str
    is_hidden: bool


@dataclass(frozen=True, slots=True)
class Workbook:
    """The sheets of a workbook and what they share.

    Attributes:
        sheets: in their order, without charts.
        strings: the shared strings.
        dates: numbers of the cell formats that show a number as a date.
    """

    sheets: list[Sheet]
    strings: list[str]
    dates: frozenset[int]


def read_workbook(archive: WorkbookArchive) -> Workbook:
    """Return the sheets, strings and formats of a workbook.

    Raises:
        ValueError: when the archive is not a workbook.
    """
    names = archive.namelist()
    part = next((name for name in names if name.lower().endswith("xl/workbook.xml")), None)
    if part is None:
        is_binary = any(name.endswith("workbook.bin") for name in names)
        raise ValueError("it is an .xlsb workbook" if is_binary else "it is an archive of something else")
    folder = PurePosixPath(part).parent
    by_id: dict[str, tuple[str, str]] = {}
    for element in iter_elements(archive, str(folder / "_rels" / "workbook.xml.rels"), "Relationship"):
        target = element.get("Target", "")
        place = target.lstrip("/") if target.startswith("/") else str(folder / target)
        by_id[element.get("Id", "")] = (element.get("Type", "").rpartition("/")[2], place)
    sheets: list[Sheet] = []
    for element in iter_elements(archive, part, "sheet"):
        number = next((value for key, value in element.items() if key.endswith("}id")), "")
        kind, place = by_id.get(number, ("", ""))
        if kind == "worksheet":
            if len(sheets) == MAX_SHEETS:
                raise ValueError(f"it has more than {MAX_SHEETS} sheets")
            sheets.append(Sheet(element.get("name", place), place, element.get("state", "visible") != "visible"))
    by_kind = dict(by_id.values())
    strings = iter_elements(archive, by_kind.get("sharedStrings"), "si")
    return Workbook(
        sheets,
        [unescape(read_text(element)) for element in strings],
        _find_date_formats(archive, by_kind.get("styles")),
    )


def _find_date_formats(archive: WorkbookArchive, part: str | None) -> frozenset[int]:
    codes: dict[int, str] = {}
    dates: set[int] = set()
    for element in iter_elements(archive, part, "numFmt", "cellXfs"):
        if get_name(element) == "numFmt":
            codes[int(element.get("numFmtId", 0))] = element.get("formatCode", "")
            continue
        for number, style in enumerate(element):
            kind = int(style.get("numFmtId", 0))
            is_date = (
                _DATE_LETTERS.search(_NO_LETTERS.sub("", codes[kind])) if kind in codes else kind in _DATE_FORMATS
            )
            if is_date:
                dates.add(number)
    return frozenset(dates)


def iter_sheet_rows(archive: WorkbookArchive, book: Workbook, sheet: Sheet) -> Iterator[Row]:
    """Yield the number and the cells of each row that is in the file; None is an empty cell."""
    number = 0
    for row in iter_elements(archive, sheet.part, "row"):
        number = int(float(row.get("r", number + 1)))
        if number > MAX_SHEET_ROWS:
            raise ValueError(f"it has a row {number:.15g}; the last one that there can be is {MAX_SHEET_ROWS:,}")
        cells: list[Any] = []
        for cell in row:
            at = _find_column(cell.get("r"), len(cells))
            cells += [None] * (at - len(cells))
            cells.append(_read_cell(cell, book))
        yield number, cells


def _find_column(reference: str | None, next_one: int) -> int:
    """Return the column, from 0, of a reference such as B7; the next one if there is no reference."""
    at = 0
    reference = reference or ""
    for char in reference.upper():
        if not "A" <= char <= "Z":
            break
        at = at * 26 + ord(char) - _BEFORE_A
        if at > MAX_SHEET_COLUMNS:
            raise ValueError(f"it has a cell in column {reference[:9]}; the last one that there can be is XFD")
    return max(at - 1, next_one) if at else next_one


def _read_cell(cell: Element, book: Workbook) -> Any:
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        inside = find_child(cell, "is")
        return None if inside is None else unescape(read_text(inside)) or None
    found = find_child(cell, "v")
    value = None if found is None else found.text
    if not value:
        is_result = kind == "str" and found is not None  # a formula whose result is an empty text
        return None if is_result or find_child(cell, "f") is None else _NO_RESULT
    if kind == "s":
        return book.strings[int(value)] or None
    if kind == "b":
        return value != "0"
    if kind == "e":
        return Unusable(f"the error {value}")
    if kind == "d" or (kind == "n" and int(cell.get("s", 0)) in book.dates):
        return _DATE
    return unescape(value) if kind == "str" else _read_number(value)


def _read_number(value: str) -> int | float | str:
    try:
        return int(value) if value.lstrip("-").isdecimal() else float(value)
    except ValueError:
        return value


def find_merges(archive: WorkbookArchive, part: str, columns: Sequence[int | None]) -> dict[tuple[int, int], int]:
    """Return the last row of each merge over several rows in some columns, by row and column of its first cell."""
    with archive.open(part) as stream:
        before = b""
        while chunk := stream.read(CHUNK_BYTES):
            archive.take(len(chunk))
            if _MERGE_SIGN in before + chunk:
                break
            before = chunk[-len(_MERGE_SIGN) :]
        else:
            return {}
    merges = {}
    for element in iter_elements(archive, part, "mergeCell"):
        match = _RANGE.fullmatch(element.get("ref", ""))
        if match and int(match[3]) > int(match[2]) and (at := _find_column(match[1], 0)) in columns:
            merges[int(match[2]), at] = int(match[3])
    return merges


def fill_merges(rows: Iterator[Row], merges: dict[tuple[int, int], int]) -> Iterator[Row]:
    """Yield the rows that are not empty, with the value of a merged cell in each of its rows."""
    open_merges: dict[int, tuple[int, Any]] = {}
    first_columns = sorted({column for _, column in merges})
    for number, cells in rows:
        if all(cell is None for cell in cells):
            continue
        for at in first_columns:
            value = cells[at] if at < len(cells) else None
            if (number, at) in merges:
                open_merges[at] = (merges[number, at], value)
            elif value is None and number <= open_merges.get(at, (0, None))[0]:
                cells += [None] * (at + 1 - len(cells))
                cells[at] = open_merges[at][1]
        yield number, cells
