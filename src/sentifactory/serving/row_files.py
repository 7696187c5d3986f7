"""Files whose rows are kept whole: each row comes with its text, and goes out again with what was found out about it.

Rows of CSV and TSV stay as they stand, with their separator, quotes and line ends; objects of JSON lines keep their
keys; Parquet keeps its types. Text files become UTF-8, and begin with a byte order mark where the input did. What is
added stands in three more columns, which are called label, probability and model, or predicted_label and so on
where the file has such a column already.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from sentifactory.corpus.cleaning import clean_text
from sentifactory.corpus.columns import find_columns
from sentifactory.corpus.delimited import iter_whole_rows, read_layout
from sentifactory.corpus.encodings import TextFile, inspect_text, show_undecodable
from sentifactory.corpus.file_kinds import EXCEL, PARQUET, find_kind
from sentifactory.corpus.json_files import HEADER_ROWS, collect_keys, iter_objects, looks_like_json
from sentifactory.corpus.limits import iter_lines, shorten
from sentifactory.corpus.manifest import hash_file
from sentifactory.corpus.readers import find_bad_character
from sentifactory.corpus.table_files import describe_broken, find_batch_rows, open_parquet, watch_unpacked
from sentifactory.corpus.tables import BrokenRow, spell_cell
from sentifactory.errors import ConfigError, DataError
from sentifactory.progress import say

ADDED = ("label", "probability", "model")
_PREFIX = "predicted_"
DELIMITED = (".csv", ".tsv", ".tab", ".txt")
_JSON_LINES = (".jsonl", ".ndjson")
_PARQUET = (".parquet", ".pq")
_KINDS = "a .csv, .tsv, .jsonl or .parquet file"
LENGTH_BYTES = 8
# What a spreadsheet takes for a formula; full-width signs are the same to a Chinese or Japanese one. Numbers are none.
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)*([eE][+-]?\d+)?%?")


class WholeRow(NamedTuple):
    """A row that can be asked about.

    Attributes:
        line: the line on which it begins, from 1; of Parquet its number.
        text: the review, cleaned as for training.
        content: all of the row, in the form that its file's `encode` takes.
    """

    line: int
    text: str
    content: Any


class Answer(NamedTuple):
    """What is added to a row; the label is None where the answer is unsure, the probability where there is none."""

    label: str | None
    probability: float | None
    model: str


Row = WholeRow | BrokenRow


@dataclass(frozen=True, slots=True)
class RowFile:
    """A file to label.

    Attributes:
        path: where it is.
        sha256: of its bytes.
        column: the one that holds the reviews.
        encoding: of its text; "" where the kind of the file says it.
        added: the names of the columns that are added.
        head: bytes that the output begins with.
        iter_rows: yields every row, in order.
        encode: returns the bytes of some rows with their answers; what it returns is appended to the output.
        complete: writes the output file from what was appended, given its path; None: it is the output.
    """

    path: Path
    sha256: str
    column: str
    encoding: str
    added: tuple[str, str, str]
    head: bytes
    iter_rows: Callable[[], Iterator[Row]]
    encode: Callable[[Sequence[WholeRow], Sequence[Answer]], bytes]
    complete: Callable[[Path, IO[bytes]], None] | None


def is_formula(cell: str) -> bool:
    """Return whether a spreadsheet would take a cell for a formula.

    Example:
        >>> [is_formula(cell) for cell in ("=1+1", "-2+3", "@SUM(A1)", "-2", "+86", "好")]
        [True, True, True, False, False, False]
    """
    return _FORMULA.match(cell) is not None and _NUMBER.fullmatch(cell) is None


def open_rows(path: Path, text_column: str | None, encoding: str | None, *, is_excel_safe: bool = False) -> RowFile:
    """Open a file of reviews.

    Args:
        path: a .csv, .tsv, .jsonl or .parquet file; labels it need not have.
        text_column: column of the reviews; None: it is recognised.
        encoding: of a text file; None: it is recognised.
        is_excel_safe: of CSV and TSV, begin cells with an apostrophe that a spreadsheet would take for formulas.

    Raises:
        DataError: when it is missing, empty, of another kind, or has no such column.
        ConfigError: when it is of a kind without formulas, and they shall be made safe.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise DataError("There is no such file", where=str(path), expected=_KINDS, next_step="check the path")
    if suffix not in (*DELIMITED, *_JSON_LINES, *_PARQUET):
        raise DataError(
            f"Files of the kind {suffix!r} are not labelled",
            where=str(path),
            expected=_KINDS,
            next_step="save the reviews as CSV in UTF-8",
        )
    if is_excel_safe and suffix not in DELIMITED:
        raise ConfigError(
            f"A {suffix} file has no formulas", where="--excel_safe", next_step="leave it out, or label a CSV file"
        )
    kind = find_kind(path)
    if kind == EXCEL or (kind == PARQUET and suffix not in _PARQUET):
        is_excel = kind == EXCEL
        raise DataError(
            "This is a workbook, whatever its name, and workbooks are not labelled"
            if is_excel
            else "This is a Parquet file, whatever its name",
            where=str(path),
            expected=_KINDS,
            next_step="open it in Excel or WPS and save it as CSV in UTF-8" if is_excel else "name a copy .parquet",
        )
    if suffix in _PARQUET:
        return _open_parquet(path, text_column)
    text = inspect_text(path, encoding)
    if looks_like_json(text):
        raise DataError(
            "This is JSON, and no table" if suffix in DELIMITED else "This is one JSON document",
            where=str(path),
            expected=_KINDS,
            next_step="write one object a line into a file that ends in .jsonl",
        )
    if text.encoding not in ("utf-8", "utf-8-sig"):
        say(f"{path} is in {text.encoding.upper()}; the output is written in UTF-8")
    return (
        _open_delimited(text, text_column, is_excel_safe)
        if suffix in DELIMITED
        else _open_json_lines(text, text_column)
    )


def name_added(header: Sequence[str], where: str) -> tuple[str, str, str]:
    """Return the names of the added columns.

    Raises:
        ConfigError: when the file has columns of these names already.

    Example:
        >>> name_added(["text", "label"], "a.csv")
        ('predicted_label', 'probability', 'model')
    """
    label, probability, model = (_PREFIX + name if name in header else name for name in ADDED)
    if {label, probability, model} & {*header}:
        raise ConfigError(
            "The file has been labelled twice already", where=where, next_step="remove or rename its added columns"
        )
    return label, probability, model


def _check_text(line: int, text: str | None, show: Callable[[], str], is_sound: bool, content: Any) -> Row:
    if text is None:
        return BrokenRow(line, "the text is no text", show())
    cleaned = clean_text(text)[0]
    fault = find_bad_character(text, is_sound) if cleaned else "the text is empty"
    return BrokenRow(line, fault, shorten(show())) if fault else WholeRow(line, cleaned, content)


def _read_line_end(text: TextFile) -> str:
    with text.open() as stream:
        return "\r\n" if next(iter_lines(stream), "").endswith("\r\n") else "\n"


def _open_delimited(text: TextFile, text_column: str | None, is_excel_safe: bool) -> RowFile:
    delimiter, begins_at, header = read_layout(text)
    at = find_columns(header, f"{text.path}, line {begins_at}", text=text_column, needs_label=False).text

    line_end = _read_line_end(text)

    def write(cells: Sequence[str]) -> str:
        if is_excel_safe:
            cells = [f"'{cell}" if is_formula(cell) else cell for cell in cells]
        stream = io.StringIO()
        csv.writer(stream, delimiter=delimiter, lineterminator="\r\n").writerow(cells)
        return stream.getvalue()[:-2]  # with another line end the writer would not quote these two

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
            f"{row.content}{delimiter}{write(_spell(answer))}{line_end}"
            for row, answer in zip(rows, answers, strict=True)
        ]
        return show_undecodable("".join(lines)).encode()

    added = name_added(header, str(text.path))
    mark = codecs.BOM_UTF8 if text.has_mark else b""
    first = mark + show_undecodable(write([*header, *added]) + line_end).encode()
    return RowFile(text.path, text.sha256, header[at], text.encoding, added, first, iter_rows, encode, None)


def _spell(answer: Answer) -> list[str]:
    probability = "" if answer.probability is None else f"{answer.probability:.6f}"
    return [answer.label or "", probability, answer.model]


def _open_json_lines(text: TextFile, text_column: str | None) -> RowFile:
    with text.open(newline="\n") as stream:
        header = collect_keys(islice(iter_objects(stream), HEADER_ROWS))
    if not header:
        raise DataError(
            "The lines are no JSON objects", where=str(text.path), expected='one object a line, as {"text": "很好"}'
        )
    key = header[find_columns(header, str(text.path), text=text_column, needs_label=False).text]
    added = name_added(header, str(text.path))
    line_end = _read_line_end(text).encode()

    def iter_rows() -> Iterator[Row]:
        with text.open(newline="\n") as stream:
            for record in iter_objects(stream):
                if isinstance(record, BrokenRow):
                    yield record
                    continue
                line, found = record
                words = found.get(key)
                known = words if isinstance(words, str) else None
                yield _check_text(line, known, partial(json.dumps, found), False, found)

    def encode(rows: Sequence[WholeRow], answers: Sequence[Answer]) -> bytes:
        lines = []
        for row, answer in zip(rows, answers, strict=True):
            whole = {**row.content, **dict(zip(added, answer, strict=True))}
            line = json.dumps(whole, ensure_ascii=False)
            try:
                lines.append(line.encode())
            except UnicodeEncodeError:  # half a character in another field
                lines.append(json.dumps(whole).encode())
        return b"".join(line + line_end for line in lines)

    mark = codecs.BOM_UTF8 if text.has_mark else b""
    return RowFile(text.path, text.sha256, key, text.encoding, added, mark, iter_rows, encode, None)


def _open_parquet(path: Path, text_column: str | None) -> RowFile:
    import pyarrow
    from pyarrow.parquet import ParquetFile, ParquetWriter

    header = open_parquet(path).header
    at = find_columns(header, str(path), text=text_column, needs_label=False).text
    added = name_added(header, str(path))
    batch_rows = find_batch_rows(path)
    with ParquetFile(path) as file:
        schema = file.schema_arrow
    for name, kind in zip(added, (pyarrow.string(), pyarrow.float64(), pyarrow.string()), strict=True):
        schema = schema.append(pyarrow.field(name, kind))

    def iter_batches() -> Iterator[tuple[Any, list[Any]]]:
        try:
            with ParquetFile(path) as file:
                for batch in watch_unpacked(file.iter_batches(batch_size=batch_rows), path):
                    yield batch, batch.column(at).to_pylist()
        except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:  # a broken page, no UTF-8
            raise describe_broken("a Parquet file", path, error) from error

    def iter_rows() -> Iterator[Row]:
        number = 0
        for batch, values in iter_batches():
            for place, value in enumerate(values):
                number += 1
                yield _check_text(number, spell_cell(value), partial(str, value), False, (batch, place))

    def encode(rows: Sequence[WholeRow], answers: Sequence[Answer]) -> bytes:
        # Rows of one batch are taken out of it together.
        batches = {id(row.content[0]): row.content[0] for row in rows}
        runs = groupby(rows, key=lambda row: id(row.content[0]))
        pieces = [batches[place].take(pyarrow.array([row.content[1] for row in run])) for place, run in runs]
        table = pyarrow.Table.from_batches(pieces)
        columns = [*table.columns, *(pyarrow.array(list(cells)) for cells in zip(*answers, strict=True))]
        table = pyarrow.Table.from_arrays(
            [column.cast(field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
        )
        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, schema) as writer:
            writer.write_table(table)
        piece = sink.getvalue().to_pybytes()
        return len(piece).to_bytes(LENGTH_BYTES, "big") + piece

    def complete(spool: Path, whole: IO[bytes]) -> None:
        with spool.open("rb") as stream, ParquetWriter(whole, schema) as writer:
            while length := stream.read(LENGTH_BYTES):
                piece = stream.read(int.from_bytes(length, "big"))
                writer.write_table(pyarrow.ipc.open_stream(piece).read_all())

    return RowFile(path, hash_file(path), header[at], "", added, b"", iter_rows, encode, complete)
