"""Reads Excel workbooks straight from their XML, one row at a time.

The XML says what a table of values does not: which cells are errors, formulas without a saved result, or merged, and
how a text was escaped. The size that a sheet states is not believed: WPS and export scripts get it wrong.
Not covered: .xls and .xlsb, which are binary, and workbooks with a password.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple
from xml.etree.ElementTree import Element, ParseError, iterparse

from sentifactory.corpus.cleaning import Reason
from sentifactory.corpus.columns import LABEL_COLUMNS, TEXT_COLUMNS, Columns, normalise_name
from sentifactory.corpus.limits import (
    MAX_DEPTH,
    MAX_RATIO,
    MAX_SHEET_COLUMNS,
    MAX_SHEET_ROWS,
    MAX_SHEETS,
    find_max_unpacked,
)
from sentifactory.corpus.manifest import hash_file
from sentifactory.corpus.table_files import describe_broken
from sentifactory.corpus.tables import BrokenRow, RawRow, Table, make_row, spell_cell
from sentifactory.errors import DataError

_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    ParseError,
    OSError,
    LookupError,
    ValueError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
)
_CHUNK_BYTES = 1 << 20
# What may be in memory of a part at once, as of a row: Excel's most is 16,384 cells, of some elements each.
_MAX_ELEMENTS = 250_000
_MAX_OPEN_BYTES = 1 << 25
_DOCTYPE = b"<!DOCTYPE"
# ECMA-376, 22.4.2.4: what XML cannot hold stands as the code of its UTF-16 unit; _x005F_ is the underscore of a text
# that only looks so.
_ESCAPE = re.compile("_x([0-9A-Fa-f]{4})_")
# ECMA-376, 18.8.30: the built-in formats of dates and times, those of East Asia included.
_DATE_FORMATS = frozenset({*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)})
_NO_LETTERS = re.compile(r'"[^"]*"|\[[^\]]*\]|\\.|_.')  # of a format code: quoted words, colours, single signs
_DATE_LETTERS = re.compile("[ymdhs]", re.IGNORECASE)
_RANGE = re.compile("([A-Za-z]+)([0-9]+):[A-Za-z]+([0-9]+)")
_BEFORE_A = ord("A") - 1
_MERGE_SIGN = b"mergeCell"
_HEADER_ROWS = 10

_Row = tuple[int, list[Any]]
_Header = tuple[int, list[str]]


class _Archive(zipfile.ZipFile):
    """A workbook that is not unpacked beyond measure."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._left = find_max_unpacked(path.stat().st_size)

    def take(self, n_bytes: int) -> None:
        """Count bytes that were unpacked, of whichever part.

        Raises:
            ValueError: when they are more than a workbook of this size holds.
        """
        self._left -= n_bytes
        if self._left < 0:
            raise ValueError(f"unpacked it is more than {MAX_RATIO} times as large, or too large at all")


class _Part:
    """Reads a part of a workbook for a parser, and sees to it that little of it is open at once."""

    def __init__(self, archive: _Archive, stream: IO[bytes]) -> None:
        self._archive = archive
        self._stream = stream
        self._n_open = 0
        self._before_root: bytes | None = b""

    def read(self, n_bytes: int = -1, /) -> bytes:
        """Return the next bytes.

        Raises:
            ValueError: when they are too many, or declare entities, by which a few bytes may become many.
        """
        chunk = self._stream.read(n_bytes)
        self._archive.take(len(chunk))
        self._n_open += len(chunk)
        if self._n_open > _MAX_OPEN_BYTES:
            raise ValueError(f"one of its rows takes more than {_MAX_OPEN_BYTES >> 20} MiB")
        if self._before_root is not None:
            self._before_root += chunk.replace(b"\0", b"")
            if _DOCTYPE in self._before_root:
                raise ValueError("it holds a document type, which workbooks do not have")
        return chunk

    def begin(self) -> None:
        """Take note that the root element was found: a document type stands before it."""
        self._before_root = None

    def close_row(self) -> None:
        """Take note that what was read up to here is done with."""
        self._n_open = 0


class Unusable(NamedTuple):
    """What stands in a cell that has no value which could be read, as in "the label is an error"."""

    what: str


_NO_RESULT = Unusable("a formula whose result is not saved")
_DATE = Unusable("a date")


@dataclass(frozen=True, slots=True)
class _Sheet:
    """A sheet of a workbook.

    Attributes:
        title: as people see it.
        part: its file in the archive.
        is_hidden: whether people do not see it.
    """

    title: str
    part: str
    is_hidden: bool


@dataclass(frozen=True, slots=True)
class _Book:
    """What the sheets of a workbook have in common.

    Attributes:
        sheets: in their order; charts are none.
        strings: the shared strings.
        dates: numbers of the cell formats that show a number as a date.
    """

    sheets: list[_Sheet]
    strings: list[str]
    dates: frozenset[int]


def open_excel(path: Path) -> Table:
    """Open the sheet of a workbook that has a text and a label column; a row's line is that of the sheet.

    Raises:
        DataError: when the workbook is broken, of another kind, or more than one sheet could be meant.
    """
    try:
        with _Archive(path) as archive:
            book = _open_book(archive)
            headers = [_find_header(_iter_rows(archive, book, sheet)) for sheet in book.sheets]
    except _BROKEN as error:
        raise describe_broken("an Excel workbook", path, error) from error
    sheet, (begins_at, header) = _choose_sheet(list(zip(book.sheets, headers, strict=True)), path)

    def iter_rows(columns: Columns) -> Iterator[RawRow | BrokenRow]:
        try:
            with _Archive(path) as archive:
                merges = _find_merges(archive, sheet.part, (columns.text, columns.label, columns.domain))
                rows = _fill_merges(_iter_rows(archive, book, sheet), merges)
                yield from _pick_cells(rows, begins_at, len(header), columns)
        except _BROKEN as error:
            raise describe_broken("an Excel workbook", path, error) from error

    where = f"{path}, sheet {sheet.title!r}, line {begins_at}"
    return Table("excel", None, header, where, False, hash_file(path), iter_rows)


def unescape(text: str) -> str:
    r"""Return a text of a workbook as Excel shows it; of line ends, those that are in it remain one each.

    Example:
        >>> unescape("很好_x000D_\n真的_x005F_x000D_")
        '很好\n真的_x000D_'
    """
    if "_x" in text:
        text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
        if any("\ud800" <= char <= "\udfff" for char in text):  # two units of UTF-16 may be one character
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _open_book(archive: _Archive) -> _Book:
    """Return the sheets of a workbook, its strings and its formats.

    Raises:
        ValueError: when the archive is something else.
    """
    names = archive.namelist()
    part = next((name for name in names if name.lower().endswith("xl/workbook.xml")), None)
    if part is None:
        is_binary = any(name.endswith("workbook.bin") for name in names)
        raise ValueError("it is an .xlsb workbook" if is_binary else "it is an archive of something else")
    folder = PurePosixPath(part).parent
    by_id: dict[str, tuple[str, str]] = {}
    for element in _iter_elements(archive, str(folder / "_rels" / "workbook.xml.rels"), "Relationship"):
        target = element.get("Target", "")
        place = target.lstrip("/") if target.startswith("/") else str(folder / target)
        by_id[element.get("Id", "")] = (element.get("Type", "").rpartition("/")[2], place)
    sheets: list[_Sheet] = []
    for element in _iter_elements(archive, part, "sheet"):
        number = next((value for key, value in element.items() if key.endswith("}id")), "")
        kind, place = by_id.get(number, ("", ""))
        if kind == "worksheet":
            if len(sheets) == MAX_SHEETS:
                raise ValueError(f"it has more than {MAX_SHEETS} sheets")
            sheets.append(_Sheet(element.get("name", place), place, element.get("state", "visible") != "visible"))
    by_kind = dict(by_id.values())
    strings = _iter_elements(archive, by_kind.get("sharedStrings"), "si")
    return _Book(
        sheets,
        [unescape(_read_text(element)) for element in strings],
        _find_date_formats(archive, by_kind.get("styles")),
    )


def _iter_elements(archive: _Archive, part: str | None, *names: str) -> Iterator[Element]:
    """Yield the elements of a part that have one of the names, in any namespace; none where there is no such part."""
    if part is None or part not in archive.NameToInfo:
        return
    parents: list[Element] = []
    n_wanted = n_elements = 0
    with archive.open(part) as stream:
        source = _Part(archive, stream)
        for event, element in iterparse(source, ("start", "end")):  # noqa: S314  # no document type, no entities
            is_wanted = _get_name(element) in names
            if event == "start":
                source.begin()
                parents.append(element)
                n_wanted += is_wanted
                n_elements += 1
                if n_elements > _MAX_ELEMENTS or len(parents) > MAX_DEPTH:
                    raise ValueError("one of its rows has too many elements")
                continue
            parents.pop()
            n_wanted -= is_wanted
            if is_wanted:
                yield element
            if parents and not n_wanted:
                parents[-1].clear()  # what was handed out, or is not wanted, takes no memory any more
                n_elements = 0
                source.close_row()


def _get_name(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _find_child(element: Element, name: str) -> Element | None:
    return next((child for child in element if _get_name(child) == name), None)


def _read_text(element: Element) -> str:
    """Return the text of a string, whatever its fonts; how it is pronounced (phonetic runs) is no part of it."""
    if _get_name(element) == "t":
        return element.text or ""
    return "".join(_read_text(child) for child in element if _get_name(child) in ("t", "r"))


def _find_date_formats(archive: _Archive, part: str | None) -> frozenset[int]:
    codes: dict[int, str] = {}
    dates: set[int] = set()
    for element in _iter_elements(archive, part, "numFmt", "cellXfs"):
        if _get_name(element) == "numFmt":
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


def _iter_rows(archive: _Archive, book: _Book, sheet: _Sheet) -> Iterator[_Row]:
    """Yield the number and the cells of each row that is in the file; None is an empty cell."""
    number = 0
    for row in _iter_elements(archive, sheet.part, "row"):
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
    """Return the position, from 0, that a reference such as B7 states; without one it is the next."""
    at = 0
    reference = reference or ""
    for char in reference.upper():
        if not "A" <= char <= "Z":
            break
        at = at * 26 + ord(char) - _BEFORE_A
        if at > MAX_SHEET_COLUMNS:
            raise ValueError(f"it has a cell in column {reference[:9]}; the last one that there can be is XFD")
    return max(at - 1, next_one) if at else next_one


def _read_cell(cell: Element, book: _Book) -> Any:
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        inside = _find_child(cell, "is")
        return None if inside is None else unescape(_read_text(inside)) or None
    found = _find_child(cell, "v")
    value = None if found is None else found.text
    if not value:
        is_result = kind == "str" and found is not None  # a formula whose result is no text at all
        return None if is_result or _find_child(cell, "f") is None else _NO_RESULT
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


def _find_merges(archive: _Archive, part: str, columns: Sequence[int | None]) -> dict[tuple[int, int], int]:
    """Return the last row of each merge over several rows in wanted columns, by row and column of its first cell."""
    with archive.open(part) as stream:
        before = b""
        while chunk := stream.read(_CHUNK_BYTES):
            archive.take(len(chunk))
            if _MERGE_SIGN in before + chunk:
                break
            before = chunk[-len(_MERGE_SIGN) :]
        else:
            return {}
    merges = {}
    for element in _iter_elements(archive, part, "mergeCell"):
        match = _RANGE.fullmatch(element.get("ref", ""))
        if match and int(match[3]) > int(match[2]) and (at := _find_column(match[1], 0)) in columns:
            merges[int(match[2]), at] = int(match[3])
    return merges


def _fill_merges(rows: Iterator[_Row], merges: dict[tuple[int, int], int]) -> Iterator[_Row]:
    """Yield the rows that are not empty, with the value of a merge in each row of it, as people read it."""
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


def _find_header(rows: Iterator[_Row]) -> tuple[int, list[str]]:
    """Return the number and the names of the header; (0, []) where the sheet is empty.

    It is the first row that is not empty. A row of one cell is a title where one of the rows below it has several.
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


def _choose_sheet(found: list[tuple[_Sheet, _Header]], path: Path) -> tuple[_Sheet, _Header]:
    filled = [(sheet, header) for sheet, header in found if header[0]]
    filled = [one for one in filled if not one[0].is_hidden] or filled
    if not filled:
        raise DataError(
            "The workbook is empty", where=str(path), expected="a header and reviews, as in label | review"
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
            next_step="keep that sheet alone, or save it as CSV in UTF-8",
        )
    return usable[0]


def _pick_cells(rows: Iterator[_Row], header_at: int, width: int, columns: Columns) -> Iterator[RawRow | BrokenRow]:
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
