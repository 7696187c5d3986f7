"""Reads reviews from files of any kind: the right rows with the line on which each begins, or one clear message.

A fault of a row in an otherwise sound file rejects the row, with line and reason; a fault of the file is a DataError.
Every row becomes a review or is rejected, and none is lost. A cell is text and nothing else: "NA", "null" and "None"
are reviews like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from sentifactory.corpus.chat_rows import find_chat_reader
from sentifactory.corpus.cleaning import Reason
from sentifactory.corpus.columns import find_columns
from sentifactory.corpus.delimited import open_delimited
from sentifactory.corpus.encodings import inspect_text, show_undecodable
from sentifactory.corpus.intake import Intake, ReadOptions, RejectedRow
from sentifactory.corpus.json_files import open_json, open_json_lines
from sentifactory.corpus.labels import LabelReader
from sentifactory.corpus.manifest import InputFile
from sentifactory.corpus.row_faults import (
    describe_other_labels,
    describe_rejected,
    refuse_other_labels,
    refuse_unsound,
)
from sentifactory.corpus.table_files import open_excel, open_parquet
from sentifactory.corpus.tables import BrokenRow, RawRow, Table
from sentifactory.errors import DataError
from sentifactory.records import Review, Source
from sentifactory.task import Task

_TEXT_OPENERS: dict[str, Callable[..., Table]] = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt"), open_delimited),
    **dict.fromkeys((".jsonl", ".ndjson"), open_json_lines),
    ".json": open_json,
}
_BINARY_OPENERS: dict[str, Callable[[Path], Table]] = {
    **dict.fromkeys((".parquet", ".pq"), open_parquet),
    **dict.fromkeys((".xlsx", ".xlsm"), open_excel),
}
FILE_SUFFIXES = frozenset({*_TEXT_OPENERS, *_BINARY_OPENERS})


def read_source(source: str | Path, task: Task, options: ReadOptions | None = None, *, can_map: bool = True) -> Intake:
    """Read a file as reviews and rejected rows.

    Args:
        source: a .csv, .tsv, .txt, .jsonl, .json, .parquet or .xlsx file.
        task: says which labels there are.
        options: what the user says about it.
        can_map: whether the command has options that say what the words of a file mean, to be named in advice.

    Raises:
        DataError: when the file as a whole cannot be used: it is missing, empty, of another kind, in no encoding that
            can be found, lacks a column, has no usable row, more broken rows than sound ones, or labels that are not
            those of the task.
        ConfigError: when an option does not fit.
    """
    intake, labels = _read_file(Path(source), str(source), task, options or ReadOptions(), can_map=can_map)
    refuse_unsound(intake, str(source), labels)
    return intake


def read_reviews(path: str | Path, task: Task, options: ReadOptions | None = None) -> list[Review]:
    """Read a labelled file of which every row must be sound, in the order of the file.

    Rows without a text are kept (with or without a label), so that whoever cleans the reviews can count them.

    Args:
        path: as for `read_source`.
        task: says which labels there are.
        options: what the user says about it.

    Raises:
        DataError: as `read_source`, and when any row is broken or carries no known label. Nothing is returned then.
        ConfigError: when an option does not fit.
    """
    intake, labels = _read_file(Path(path), str(path), task, options or ReadOptions(), can_map=False)
    if intake.rejected:
        refuse_other_labels(intake, labels)
        raise describe_rejected(intake.rejected, labels)
    refuse_unsound(intake, str(path), labels)
    return intake.reviews


def read_texts(path: str | Path, task: Task, options: ReadOptions | None = None) -> list[Review]:
    """Read the texts of a file, in its order, whatever their labels; there need not be a column of labels.

    Broken rows are passed over as long as they are the fewer.

    Args:
        path: as for `read_source`.
        task: its prompt is looked for in training files.
        options: what the user says about column and encoding.

    Raises:
        DataError: when the file as a whole cannot be used, or has no rows.
    """
    options = options or ReadOptions()
    table = _open_file(Path(path), options)
    rows, _ = _open_rows(table, task, options, needs_label=False)
    found, broken = [], []
    for row in rows:
        if isinstance(row, BrokenRow):
            broken.append(row)
        else:
            found.append(Review(row.text, None, Source(str(path), row.line)))
    if len(broken) > len(found):
        what = broken[0].detail[0].upper() + broken[0].detail[1:]
        raise DataError(what, where=f"{path}, line {broken[0].line}", next_step="correct or remove the row")
    if not found:
        raise DataError("The file has a header and no rows", where=str(path), next_step="give a file with a review")
    return found


def _read_file(
    path: Path, name: str, task: Task, options: ReadOptions, *, can_map: bool
) -> tuple[Intake, LabelReader]:
    labels = LabelReader(task, options.label_map, options.star_threshold, can_map=can_map)
    table = _open_file(path, options)
    reviews, rejected = collect_rows(table, name, task, options, labels)
    inputs = [InputFile(name, table.sha256, len(reviews) + len(rejected))]
    return Intake(reviews, rejected, table.encoding, table.format, inputs), labels


def _open_file(path: Path, options: ReadOptions) -> Table:
    suffix = path.suffix.lower()
    kinds = ".csv, .tsv, .jsonl, .json, .parquet or .xlsx"
    if not path.exists():
        raise DataError("The file does not exist", where=str(path), next_step="check the path")
    if not path.is_file():
        raise DataError("This is not a file", where=str(path), expected=f"a {kinds} file")
    if suffix not in FILE_SUFFIXES:
        raise DataError(
            f"Files of the kind {path.suffix or 'without an ending'!r} are not read",
            where=str(path),
            expected=f"a {kinds} file",
            next_step="save the workbook as .xlsx" if suffix == ".xls" else "export the reviews as CSV in UTF-8",
        )
    if path.stat().st_size == 0:
        raise DataError("The file is empty", where=str(path), expected="a header and reviews, as in label,review")
    if suffix in _BINARY_OPENERS:
        return _BINARY_OPENERS[suffix](path)
    return _TEXT_OPENERS[suffix](inspect_text(path, options.encoding))


def collect_rows(
    table: Table, name: str, task: Task, options: ReadOptions, labels: LabelReader
) -> tuple[list[Review], list[RejectedRow]]:
    """Return the rows of a table as reviews and rejected rows.

    Args:
        table: an open file of any format.
        name: of the file, as the user gave it.
        task: says which labels there are.
        options: what the user says about it.
        labels: reads the label cells.

    Raises:
        DataError: when the columns cannot be found.
    """
    rows, has_stars = _open_rows(table, task, options)
    reviews: list[Review] = []
    rejected: list[RejectedRow] = []
    domains: dict[str, str | None] = {"": None}  # one string for each name, however many rows carry it
    find_label = labels.find
    for row in rows:
        source = Source(name, row.line)
        if isinstance(row, BrokenRow):
            rejected.append(RejectedRow(source, Reason.BROKEN_ROW, show_undecodable(row.shown), row.detail))
            continue
        _, text, cell, domain = row
        fault = find_bad_character(text, table.is_sound)
        if fault:
            rejected.append(RejectedRow(source, Reason.BROKEN_ROW, show_undecodable(text), fault))
            continue
        found = find_label(cell)
        label = found if isinstance(found, int) else None
        if not isinstance(found, int) and text and not text.isspace():
            rejected.append(RejectedRow(source, found, text, _describe_label(found, cell)))
            continue
        if domain not in domains:
            domains[domain] = show_undecodable(domain.strip()) or None
        reviews.append(Review(text, label, source, domains[domain]))
    if has_stars and labels.wants_threshold and any(row.reason == Reason.UNKNOWN_LABEL for row in rejected):
        raise describe_other_labels(reviews, rejected, labels)  # 1 of 5 stars is not positive
    return reviews, rejected


def _open_rows(
    table: Table, task: Task, options: ReadOptions, *, needs_label: bool = True
) -> tuple[Iterator[RawRow | BrokenRow], bool]:
    """Return the rows of a table, and whether the name of its label column says that it holds stars."""
    rows = find_chat_reader(table, task, options.text_column, options.label_column)
    if rows is not None:
        return rows, False
    columns = find_columns(
        table.header,
        table.header_at,
        text=options.text_column,
        label=options.label_column,
        domain=options.domain_column,
        needs_label=needs_label,
    )
    return table.iter_rows(columns), columns.has_stars


def find_bad_character(text: str, is_sound: bool) -> str:
    """Return what makes a text no text, or "": a zero byte, or half a character."""
    if "\0" in text:
        return "the review holds a NUL byte"
    if is_sound or text.isascii():
        return ""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            return f"the review holds byte 0x{code - 0xDC00:02X}, which does not fit the encoding of the file"
        return f"the review holds half a character (\\u{code:04x})"
    return ""


def _describe_label(reason: Reason, cell: str) -> str:
    if reason == Reason.NO_LABEL:
        return "the label is missing"
    return f"the label is {_shorten(show_undecodable(cell))!r}"


def _shorten(word: str) -> str:
    return word if len(word) <= 40 else word[:40] + "…"
