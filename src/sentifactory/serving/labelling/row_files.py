"""Reads and writes files to label: every row is written out unchanged, with its label, probability and model added.

Rows of CSV and TSV keep their separator, quotes and line ends, objects of JSON lines their spelling, and Parquet its
types. Text files become UTF-8, with a byte order mark where the input has one. The three added columns are called
label, probability and model, or predicted_label and so on where the file has such a column already. With answers that
are adapted to other shares of the labels there are two more: unadapted_label and unadapted_probability.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from sentifactory.clean_text import clean_text
from sentifactory.corpus.files.columns import find_columns
from sentifactory.corpus.files.delimited import iter_whole_rows, read_layout
from sentifactory.corpus.files.encodings import TextFile, inspect_text, show_undecodable
from sentifactory.corpus.files.json_files import HEADER_ROWS, collect_keys, iter_objects
from sentifactory.corpus.files.limits import iter_lines, shorten
from sentifactory.corpus.files.open_file import (
    DELIMITED_SUFFIXES,
    EXCEL,
    JSON_LINES_SUFFIXES,
    PARQUET,
    PARQUET_SUFFIXES,
    find_kind,
    looks_like_json,
)
from sentifactory.corpus.files.table_files import (
    PARQUET_FILE,
    explain_broken,
    find_batch_rows,
    open_parquet,
    watch_unpacked,
)
from sentifactory.corpus.files.tables import BrokenRow, spell_cell
from sentifactory.corpus.reading.review_files import find_bad_character
from sentifactory.errors import ConfigError, DataError
from sentifactory.system.progress import say

ADDED = ("label", "probability", "model")
UNADAPTED = ("unadapted_label", "unadapted_probability")
# In the counts of a labelling, next to the labels.
BAD, UNSURE = "bad_rows", "unsure"
_PREFIX = "predicted_"
_KINDS = "a .csv, .tsv, .jsonl or .parquet file"
LENGTH_BYTES = 8
# What a spreadsheet takes for a formula (Chinese and Japanese ones also with full-width characters); numbers are not.
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)*([eE][+-]?\d+)?%?")


class WholeRow(NamedTuple):
    """A row with a usable text.

    Attributes:
        line: the line on which it begins, from 1; in Parquet the number of the row.
        text: the review, cleaned as for training.
        content: the whole row, in the form that its file's `encode` takes.
    """

    line: int
    text: str
    content: Any


class Answer(NamedTuple):
    """The values added to a row; label is None below the threshold, probability is None where the engine has none.

    The last two are written only into a file that has the columns `UNADAPTED`.
    """

    label: str | None
    probability: float | None
    model: str
    unadapted_label: str | None = None
    unadapted_probability: float | None = None


Row = WholeRow | BrokenRow


@dataclass(frozen=True, slots=True)
class RowFile:
    """A file to label.

    Attributes:
        path: of the file.
        sha256: of its bytes.
        column: the column of the reviews.
        encoding: of a text file; "" for Parquet.
        added: names of the added columns.
        head: first bytes of the output.
        iter_rows: yields every row, in order.
        encode: returns the bytes that are appended to the output for some rows and their answers.
        complete: writes the output file from the appended bytes; None: they are the same.
    """

    path: Path
    sha256: str
    column: str
    encoding: str
    added: tuple[str, ...]
    head: bytes
    iter_rows: Callable[[], Iterator[Row]]
    encode: Callable[[Sequence[WholeRow], Sequence[Answer]], bytes]
    complete: Callable[[IO[bytes], IO[bytes]], None] | None


def is_formula(cell: str) -> bool:
    """Return whether a spreadsheet would take a cell for a formula.

    Example:
        >>> [is_formula(cell) for cell in ("=1+1", "-2+3", "@SUM(A1)", "-2", "+86", "好")]
        [True, True, True, False, False, False]
    """
    return _FORMULA.match(cell) is not None and _NUMBER.fullmatch(cell) is None


def open_rows(
    path: Path,
    text_column: str | None,
    encoding: str | None,
    *,
    is_excel_safe: bool = False,
    is_adapted: bool = False,
) -> RowFile:
    """Open a file of reviews.

    Args:
        path: a .csv, .tsv, .jsonl or .parquet file, with or without labels.
        text_column: column of the reviews; None: detected.
        encoding: of a text file; None: detected.
        is_excel_safe: prefix cells of CSV and TSV with an apostrophe that a spreadsheet would take for formulas.
        is_adapted: add the columns `UNADAPTED` as well.

    Raises:
        DataError: when it is missing, empty, of another kind, or has no such column.
        ConfigError: when `is_excel_safe` is set for a kind of file without formulas.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise DataError("There is no such file", where=str(path), expected=_KINDS, next_step="check the path")
    if suffix not in (*DELIMITED_SUFFIXES, *JSON_LINES_SUFFIXES, *PARQUET_SUFFIXES):
        raise DataError(
            f"Files of the kind {suffix!r} cannot be labelled",
            where=str(path),
            expected=_KINDS,
            next_step="save the reviews as CSV in UTF-8",
        )
    if is_excel_safe and suffix not in DELIMITED_SUFFIXES:
        raise ConfigError(
            f"A {suffix} file has no formulas", where="--excel_safe", next_step="leave it out, or label a CSV file"
        )
    kind = find_kind(path)
    if kind == EXCEL or (kind == PARQUET and suffix not in PARQUET_SUFFIXES):
        is_excel = kind == EXCEL
        raise DataError(
            "This is a workbook in spite of its name, and workbooks cannot be labelled"
            if is_excel
            else "This is a Parquet file in spite of its name",
            where=str(path),
            expected=_KINDS,
            next_step="open it in Excel or WPS and save it as CSV in UTF-8" if is_excel else "name a copy .parquet",
        )
    names = (*ADDED, *UNADAPTED) if is_adapted else ADDED
    if suffix in PARQUET_SUFFIXES:
        return _open_parquet(path, text_column, names)
    text = inspect_text(path, encoding)
    if looks_like_json(text):
        raise DataError(
            "This is JSON, not a table" if suffix in DELIMITED_SUFFIXES else "This is one JSON document",
            where=str(path),
            expected=_KINDS,
            next_step="write one object per line into a .jsonl file",
        )
    if text.encoding not in ("utf-8", "utf-8-sig"):
        say(f"{path} is in {text.encoding.upper()}; the output is written in UTF-8")
    return (
        _open_delimited(text, text_column, names, is_excel_safe)
        if suffix in DELIMITED_SUFFIXES
        else _open_json_lines(text, text_column, names)
    )


def name_added(header: Collection[str], where: str, names: Sequence[str] = ADDED) -> tuple[str, ...]:
    """Return the names of the added columns.

    Args:
        header: the columns of the file.
        where: the file, for errors.
        names: what the added columns are called where the file has no such column.

    Raises:
        ConfigError: when the file already has columns of these names.

    Example:
        >>> name_added(["text", "label"], "a.csv")
        ('predicted_label', 'probability', 'model')
    """
    added = tuple(_PREFIX + name if name in header else name for name in names)
    if {*added} & {*header}:
        raise ConfigError(
            "The file has already been labelled twice", where=where, next_step="rename its added columns in a copy"
        )
    return added


def _check_text(line: int, text: str | None, show: Callable[[], str], is_decoded: bool, content: Any) -> Row:
    if text is None:
        return BrokenRow(line, "the text is not a string", show())
    cleaned = clean_text(text)[0]
    fault = find_bad_character(text, is_decoded) if cleaned else "the text is empty"
    return BrokenRow(line, fault, shorten(show())) if fault else WholeRow(line, cleaned, content)


def _read_line_end(text: TextFile) -> str:
    with text.open() as stream:
        return "\r\n" if next(iter_lines(stream), "").endswith("\r\n") else "\n"


def _open_delimited(text: TextFile, text_column: str | None, names: Sequence[str], is_excel_safe: bool) -> RowFile:
    delimiter, begins_at, header = read_layout(text)
    at = find_columns(
        header, f"{text.path}, line {begins_at}", text=text_column, needs_label=False, can_name=True
    ).text

    line_end = _read_line_end(text)

    def write(cells: Sequence[str]) -> str:
        if is_excel_safe:
            cells = [f"'{cell}" if is_formula(cell) else cell for cell in cells]
        stream = io.StringIO()
        csv.writer(stream, delimiter=delimiter, lineterminator="\r\n").writerow(cells)
        return stream.getvalue()[:-2]  # with another line end the writer would not quote \r and \n

    def iter_rows() -> Iterator[Row]:
        lines: list[str] = []
        for record in iter_whole_rows(text, delimiter, len(header), lines):
            if isinstance(record, BrokenRow):
                yield record
                continue
            line, cells = record
            whole = "".join(lines).rstrip("\r\n")
            if not whole or (is_excel_safe and any(map(is_formula, cells))):
                whole = write(cells)
            yield _check_text(line, cells[at], partial(delimiter.join, cells), text.is_sound, whole)

    def encode(rows: Sequence[WholeRow], answers: Sequence[Answer]) -> bytes:
        lines = [
            f"{row.content}{delimiter}{write(_spell(answer)[: len(added)])}{line_end}"
            for row, answer in zip(rows, answers, strict=True)
        ]
        return show_undecodable("".join(lines)).encode()

    added = name_added(header, str(text.path), names)
    mark = codecs.BOM_UTF8 if text.has_marker else b""
    first = mark + show_undecodable(write([*header, *added]) + line_end).encode()
    return RowFile(text.path, text.sha256, header[at], text.encoding, added, first, iter_rows, encode, None)


def _spell(answer: Answer) -> list[str]:
    return [f"{value:.6f}" if isinstance(value, float) else value or "" for value in answer]


def _open_json_lines(text: TextFile, text_column: str | None, names: Sequence[str]) -> RowFile:
    reserved = {*names, *(_PREFIX + name for name in names)}
    with text.open(newline="\n") as stream:
        objects = iter_objects(stream)
        header = collect_keys(islice(objects, HEADER_ROWS))
        # No object may have an added key already: it would be replaced.
        taken = {key for row in objects if not isinstance(row, BrokenRow) for key in reserved.intersection(row[1])}
    if not header:
        raise DataError(
            "The lines are not JSON objects", where=str(text.path), expected='one object per line: {"text": "很好"}'
        )
    key = header[find_columns(header, str(text.path), text=text_column, needs_label=False, can_name=True).text]
    added = name_added({*header, *taken}, str(text.path), names)
    line_end = _read_line_end(text)

    def iter_rows() -> Iterator[Row]:
        lines: list[str] = []
        with text.open(newline="\n") as stream:
            for record in iter_objects(stream, lines):
                if isinstance(record, BrokenRow):
                    yield record
                    continue
                line, found = record
                value = found.get(key)
                review = value if isinstance(value, str) else None
                whole = lines[0].strip()
                yield _check_text(line, review, partial(str, whole), False, whole)

    def encode(rows: Sequence[WholeRow], answers: Sequence[Answer]) -> bytes:
        # Spliced in: written anew, 1e400 would become Infinity, and long decimals would be rounded.
        more = (json.dumps(dict(zip(added, answer, strict=False)), ensure_ascii=False) for answer in answers)
        lines = (f"{row.content[:-1]}, {own[1:]}{line_end}" for row, own in zip(rows, more, strict=True))
        return "".join(lines).encode(errors="backslashreplace")  # bytes that are no text become escapes of JSON

    mark = codecs.BOM_UTF8 if text.has_marker else b""
    return RowFile(text.path, text.sha256, key, text.encoding, added, mark, iter_rows, encode, None)


def _open_parquet(path: Path, text_column: str | None, names: Sequence[str]) -> RowFile:
    import pyarrow
    from pyarrow.parquet import ParquetFile, ParquetWriter

    opened = open_parquet(path)
    header = opened.header
    at = find_columns(header, str(path), text=text_column, needs_label=False, can_name=True).text
    added = name_added(header, str(path), names)
    batch_rows = find_batch_rows(path)
    with ParquetFile(path) as file:
        schema = file.schema_arrow
    kinds = (pyarrow.string(), pyarrow.float64(), pyarrow.string(), pyarrow.string(), pyarrow.float64())
    for name, kind in zip(added, kinds, strict=False):
        schema = schema.append(pyarrow.field(name, kind))

    def iter_batches() -> Iterator[tuple[Any, list[Any]]]:
        with explain_broken(PARQUET_FILE, path), ParquetFile(path) as file:
            for batch in watch_unpacked(file.iter_batches(batch_size=batch_rows), path):
                yield batch, batch.column(at).to_pylist()

    def iter_rows() -> Iterator[Row]:
        number = 0
        for batch, values in iter_batches():
            for index, value in enumerate(values):
                number += 1
                yield _check_text(number, spell_cell(value), partial(str, value), False, (batch, index))

    def encode(rows: Sequence[WholeRow], answers: Sequence[Answer]) -> bytes:
        # Consecutive rows of one batch are copied together.
        batches = {id(row.content[0]): row.content[0] for row in rows}
        runs = groupby(rows, key=lambda row: id(row.content[0]))
        pieces = [batches[key].take(pyarrow.array([row.content[1] for row in run])) for key, run in runs]
        table = pyarrow.Table.from_batches(pieces)
        cells = list(zip(*answers, strict=True))[: len(added)]
        columns = [*table.columns, *map(pyarrow.array, cells)]
        table = pyarrow.Table.from_arrays(
            [column.cast(field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
        )
        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, schema) as writer:
            writer.write_table(table)
        piece = sink.getvalue().to_pybytes()
        return len(piece).to_bytes(LENGTH_BYTES, "big") + piece

    def complete(appended: IO[bytes], whole: IO[bytes]) -> None:
        with ParquetWriter(whole, schema) as writer:
            while length := appended.read(LENGTH_BYTES):
                piece = appended.read(int.from_bytes(length, "big"))
                writer.write_table(pyarrow.ipc.open_stream(piece).read_all())

    return RowFile(path, opened.sha256, header[at], "", added, b"", iter_rows, encode, complete)
