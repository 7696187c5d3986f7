"""Reads Parquet files and Excel workbooks."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sentifactory.corpus.columns import LABEL_COLUMNS, TEXT_COLUMNS, Columns, normalise_name
from sentifactory.corpus.manifest import hash_file
from sentifactory.corpus.tables import BrokenRow, RawRow, Table, make_row, spell_cell
from sentifactory.errors import ConfigError, DataError

BATCH_ROWS = 16_384


def open_parquet(path: Path) -> Table:
    """Open a Parquet file; its rows are numbered from 1.

    Raises:
        DataError: when it is broken.
        ConfigError: when pyarrow is not installed.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise _ask_for_package("pyarrow", path) from error
    try:
        with ParquetFile(path) as file:
            header, class_names = list(file.schema_arrow.names), read_class_names(file.schema_arrow)
    except (ArrowException, OSError) as error:
        raise _describe_broken("a Parquet file", path, error) from error

    def iter_rows(columns: Columns) -> Iterator[RawRow | BrokenRow]:
        wanted = None if columns.has_chats else pick_names(header, columns)
        try:
            with ParquetFile(path) as file:
                batches = file.iter_batches(batch_size=BATCH_ROWS, columns=wanted and list(dict.fromkeys(wanted)))
                yield from iter_batches(batches, wanted, class_names)
        except (ArrowException, OSError) as error:
            raise _describe_broken("a Parquet file", path, error) from error

    return Table("parquet", None, header, str(path), True, hash_file(path), iter_rows)


def open_arrow(path: Path) -> Table:
    """Open an Arrow file as `Dataset.save_to_disk` of the library datasets writes it; its rows are numbered from 1.

    Raises:
        DataError: when it is broken.
        ConfigError: when pyarrow is not installed.
    """
    try:
        from pyarrow import ArrowException, ipc
    except ImportError as error:
        raise _ask_for_package("pyarrow", path) from error
    try:
        with path.open("rb") as stream:
            schema = ipc.open_stream(stream).schema
    except (ArrowException, OSError) as error:
        raise _describe_broken("an Arrow file", path, error) from error
    header, class_names = list(schema.names), read_class_names(schema)

    def iter_rows(columns: Columns) -> Iterator[RawRow | BrokenRow]:
        wanted = None if columns.has_chats else pick_names(header, columns)
        try:
            with path.open("rb") as stream:
                yield from iter_batches(ipc.open_stream(stream), wanted, class_names)
        except (ArrowException, OSError) as error:
            raise _describe_broken("an Arrow file", path, error) from error

    return Table("arrow", None, header, str(path), True, hash_file(path), iter_rows)


def pick_names(header: Sequence[str], columns: Columns) -> list[str]:
    """Return the names of the columns of text and label, and of the domain if there is one."""
    return [header[at] for at in (columns.text, columns.label, columns.domain) if at is not None]


def read_class_names(schema: Any) -> dict[str, list[str]]:
    """Return the class names of the columns for which an Arrow schema states them, in the order of their numbers.

    The library datasets writes them (`ClassLabel`) into the files that it makes, beside the bare numbers.
    """
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        stated = {name: kind["names"] for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError):  # no metadata, or of another kind
        return {}
    return {name: names for name, names in stated.items() if isinstance(names, list)}


def iter_batches(
    batches: Any, names: Sequence[str] | None, class_names: Mapping[str, Sequence[str]]
) -> Iterator[RawRow | BrokenRow]:
    """Yield the rows of Arrow record batches, numbered from 1.

    Args:
        batches: record batches.
        names: the columns of text and label, and of the domain if there is one; None: the rows hold chats, and each
            is handed on whole, as JSON.
        class_names: names of the classes by column; a number in such a column stands for a name.
    """
    number = 0
    for batch in batches:
        wanted = batch.schema.names if names is None else names
        cells = [_read_cells(batch.column(name), class_names.get(name)) for name in wanted]
        if names is not None and len(cells) == 2:
            cells.append([""] * len(cells[0]))
        for row in zip(*cells, strict=True):
            number += 1
            if names is None:
                whole = json.dumps(dict(zip(wanted, row, strict=True)), ensure_ascii=False, default=str)
                yield RawRow(number, whole, "", "")
            else:
                yield make_row(number, *row)


def _read_cells(column: Any, class_names: Sequence[str] | None) -> list[Any]:
    """Return the cells of a column; numbers of classes by their names, and -1, which hides a label, as none."""
    cells: list[Any] = column.to_pylist()
    if class_names is None:
        return cells
    named: dict[Any, Any] = {number: str(name) for number, name in enumerate(class_names)} | {-1: None}
    return [
        named.get(cell, f"class {cell}") if isinstance(cell, int) and not isinstance(cell, bool) else cell
        for cell in cells
    ]


def open_excel(path: Path) -> Table:
    """Open the sheet of a workbook that has a text and a label column; a row's line is that of the sheet.

    Raises:
        DataError: when the workbook is broken, of the old kind, or more than one sheet could be meant.
        ConfigError: when openpyxl is not installed.
    """
    try:
        from openpyxl import load_workbook
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError as error:
        raise _ask_for_package("openpyxl", path) from error
    try:
        book = load_workbook(path, read_only=True, data_only=True)
        sheets = {sheet.title: sheet for sheet in book.worksheets}
        headers = {title: _read_header(sheet) for title, sheet in sheets.items()}
    except (InvalidFileException, zipfile.BadZipFile, OSError, KeyError, ValueError, SyntaxError) as error:
        raise _describe_broken("an Excel workbook", path, error) from error
    title = _choose_sheet(headers, path)
    begins_at, header = headers[title]
    return Table(
        format="excel",
        encoding=None,
        header=header,
        header_at=f"{path}, sheet {title!r}, line {begins_at}",
        is_sound=False,
        sha256=hash_file(path),
        iter_rows=partial(_iter_sheet, sheets[title], begins_at, len(header)),
    )


def _read_header(sheet: Any) -> tuple[int, list[str]]:
    """Return the first row that is not empty: its number and its cells; (0, []) where there is none."""
    for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
        if any(cell is not None for cell in cells):
            names = [spell_cell(cell) or "" for cell in cells]
            while not names[-1]:
                names.pop()
            return number, names
    return 0, []


def _choose_sheet(headers: dict[str, tuple[int, list[str]]], path: Path) -> str:
    filled = [title for title, (number, _) in headers.items() if number]
    if not filled:
        raise DataError(
            "The workbook is empty", where=str(path), expected="a header and reviews, as in label | review"
        )
    if len(filled) > 1:
        usable = [
            title
            for title in filled
            if all({*map(normalise_name, headers[title][1])} & {*known} for known in (TEXT_COLUMNS, LABEL_COLUMNS))
        ]
        if len(usable) != 1:
            raise DataError(
                f"The workbook has {len(filled)} sheets with data: {', '.join(map(repr, filled[:10]))}",
                where=str(path),
                expected="one sheet with a text and a label column",
                next_step="keep that sheet alone, or save it as CSV in UTF-8",
            )
        return usable[0]
    return filled[0]


def _iter_sheet(sheet: Any, header_at: int, width: int, columns: Columns) -> Iterator[RawRow | BrokenRow]:
    for number, cells in enumerate(sheet.iter_rows(min_row=header_at + 1, values_only=True), start=header_at + 1):
        if all(cell is None for cell in cells):
            continue
        row = [*cells, *[None] * (width - len(cells))]
        if any(cell is not None for cell in row[width:]):
            shown = " | ".join(str(cell) for cell in row if cell is not None)
            yield BrokenRow(number, f"the row has cells beyond the {width} of the header", shown)
            continue
        domain = "" if columns.domain is None else row[columns.domain]
        yield make_row(number, row[columns.text], row[columns.label], domain)


def _ask_for_package(package: str, path: Path) -> ConfigError:
    return ConfigError(
        f"The package {package} is needed to read this file, and it is not installed",
        where=str(path),
        next_step=f"pip install {package}, or save the reviews as CSV in UTF-8",
    )


def _describe_broken(kind: str, path: Path, error: Exception) -> DataError:
    why = " ".join(str(error).split())
    return DataError(
        f"This is not {kind} that can be read ({why[:120]})",
        where=str(path),
        next_step="save it again, or save the reviews as CSV in UTF-8",
    )
