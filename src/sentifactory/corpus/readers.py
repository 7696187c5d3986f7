"""Reads reviews from files of any kind: the right rows with the line on which each begins, or one clear message.

A fault of a row in an otherwise sound file rejects the row, with line and reason; a fault of the file is a DataError.
Every row becomes a review or is rejected, and none is lost. A cell is text and nothing else: "NA", "null" and "None"
are reviews like any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from sentifactory.corpus.chat_rows import has_chats, has_unknown_keys, iter_column_texts, iter_labelled, iter_parted
from sentifactory.corpus.cleaning import Reason, drop_unseen
from sentifactory.corpus.columns import find_columns, find_predictions
from sentifactory.corpus.delimited import open_delimited
from sentifactory.corpus.encodings import inspect_text, show_undecodable
from sentifactory.corpus.file_kinds import EXCEL, PARQUET, TEXT, find_kind
from sentifactory.corpus.intake import Intake, ReadOptions, RejectedRow
from sentifactory.corpus.json_files import looks_like_json, open_json, open_json_lines
from sentifactory.corpus.labels import LabelReader
from sentifactory.corpus.limits import MAX_BROKEN_ROWS, MAX_TEXT_CHARS, describe_long, shorten
from sentifactory.corpus.manifest import InputFile
from sentifactory.corpus.row_faults import (
    MEND_FILE,
    describe_rejected,
    refuse_missing_labels,
    refuse_other_labels,
    refuse_unsound,
)
from sentifactory.corpus.scales import Column, Scale, read_cells
from sentifactory.corpus.seen import SeenFile
from sentifactory.corpus.table_files import describe_broken, open_arrow, open_parquet
from sentifactory.corpus.tables import BrokenRow, RawRow, Table
from sentifactory.corpus.workbooks import open_excel
from sentifactory.errors import DataError
from sentifactory.progress import say
from sentifactory.records import Review, Source
from sentifactory.task import Task

_TEXT_OPENERS: dict[str, Callable[..., Table]] = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt"), open_delimited),
    **dict.fromkeys((".jsonl", ".ndjson"), open_json_lines),
    ".json": open_json,
}
_BINARY_OPENERS: dict[str, Callable[[Path], Table]] = {PARQUET: open_parquet, EXCEL: open_excel}
_PARQUET_SUFFIXES = (".parquet", ".pq")
_EXCEL_SUFFIXES = (".xlsx", ".xlsm", ".xls")
_ARROW_SUFFIX = ".arrow"
FILE_SUFFIXES = frozenset({*_TEXT_OPENERS, *_PARQUET_SUFFIXES, *_EXCEL_SUFFIXES, _ARROW_SUFFIX})
_TOLD = 5

_Row = TypeVar("_Row")


def read_source(source: str | Path, task: Task, options: ReadOptions | None = None, *, can_map: bool = True) -> Intake:
    """Read a file as reviews and rejected rows.

    Args:
        source: a .csv, .tsv, .txt, .jsonl, .json, .parquet or .xlsx file, or one of them under another's name.
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
        refuse_missing_labels(intake)
        refuse_other_labels(intake, labels)
        raise describe_rejected(intake, labels)
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
    return _read_seen(path, task, options or ReadOptions(), None, are_reviews=True).reviews


def read_seen(
    path: str | Path,
    task: Task,
    options: ReadOptions | None = None,
    *,
    max_rows: int | None = None,
    is_trained_on: bool = False,
) -> SeenFile:
    """Read all that whoever trains on a file sees: the reviews as `read_texts`, and the words around them.

    Of a table whose texts are whole prompts the reviews are what is between the words that nearly all of them have.

    Args:
        path: as for `read_source`.
        task: as for `read_texts`.
        options: likewise.
        max_rows: only the first so many rows; None: all.
        is_trained_on: whether words under names that are not known are read as well: a recipe may name them to
            LLaMA-Factory, and they are learnt. Of a file to test on one must know which words are the reviews.

    Raises:
        DataError: as `read_texts`.
    """
    return _read_seen(path, task, options or ReadOptions(), max_rows, is_trained_on=is_trained_on)


def _read_seen(
    path: str | Path,
    task: Task,
    options: ReadOptions,
    max_rows: int | None,
    *,
    are_reviews: bool = False,
    is_trained_on: bool = False,
) -> SeenFile:
    table = _open_file(Path(path), options)
    is_foreign = is_trained_on and options.text_column is None and has_unknown_keys(table)
    if is_foreign or has_chats(table, options.text_column, options.label_column, needs_label=False):
        rows = iter_parted(table, task, takes_any_words=is_trained_on)
    else:
        columns = find_columns(table.header, table.header_at, text=options.text_column, needs_label=False)
        rows = iter_column_texts(table, None if are_reviews else task, columns)
    found = SeenFile()
    broken = []
    for row in _watch_broken(rows, str(path)):
        if isinstance(row, BrokenRow):
            broken.append(row)
        elif max_rows is None or row[0].row < max_rows:
            found.add(str(path), *row)
        else:
            break
    if len(broken) > len(found.reviews):
        what = broken[0].detail[0].upper() + broken[0].detail[1:]
        raise DataError(what, where=f"{path}, line {broken[0].line}", next_step=MEND_FILE)
    if not found.reviews:
        raise DataError("The file has a header and no rows", where=str(path), next_step="give a file with a review")
    return found


def _read_file(
    path: Path, name: str, task: Task, options: ReadOptions, *, can_map: bool
) -> tuple[Intake, LabelReader]:
    labels = LabelReader(task, options.label_map, options.star_threshold, can_map=can_map)
    table = _open_file(path, options)
    reviews, rejected, scale = collect_rows(table, name, task, options, labels)
    inputs = [InputFile(name, table.sha256, len(reviews) + len(rejected), scale)]
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
            next_step="export the reviews as CSV in UTF-8",
        )
    if path.stat().st_size == 0:
        raise DataError("The file is empty", where=str(path), expected="a header and reviews, as in label,review")
    if suffix == _ARROW_SUFFIX:
        return open_arrow(path)
    kind = find_kind(path)
    if kind == TEXT and suffix in _EXCEL_SUFFIXES:
        return _open_text_of_workbook(path, options)
    kind = PARQUET if suffix in _PARQUET_SUFFIXES else kind
    if kind in _BINARY_OPENERS:
        return _BINARY_OPENERS[kind](path)
    text = inspect_text(path, options.encoding)
    return open_json(text) if looks_like_json(text) else _TEXT_OPENERS[suffix](text)


def _open_text_of_workbook(path: Path, options: ReadOptions) -> Table:
    """Open a table of text that a program called a workbook, so that Excel opens it.

    Raises:
        DataError: when it is no table.
    """
    try:
        table = open_delimited(inspect_text(path, options.encoding))
    except DataError:
        table = None
    if table is None or len(table.header) == 1:
        raise describe_broken("an Excel workbook", path, ValueError("nor is it a table of text"))
    return table


def collect_rows(
    table: Table, name: str, task: Task, options: ReadOptions, labels: LabelReader
) -> tuple[list[Review], list[RejectedRow], Scale]:
    """Return the rows of a table as reviews and rejected rows, and what its label column holds.

    Args:
        table: an open file of any format.
        name: of the file, as the user gave it.
        task: says which labels there are.
        options: what the user says about it.
        labels: reads the label cells.

    Raises:
        DataError: when the columns cannot be found, or what the label column holds cannot be told.
        ConfigError: when the threshold is none of its scale.
    """
    opened, column = _open_rows(table, task, options, labels)
    rows = list(_watch_broken(opened, name))
    cells = Counter(row.label for row in rows if isinstance(row, RawRow) and row.text and not row.text.isspace())
    meanings, scale = read_cells(cells, column, labels)
    reviews: list[Review] = []
    rejected: list[RejectedRow] = []
    domains: dict[str, str | None] = {"": None}  # one string for each name, however many rows carry it
    for row in rows:
        source = Source(name, row.line)
        if isinstance(row, BrokenRow):
            rejected.append(RejectedRow(source, row.reason, show_undecodable(row.shown), show_undecodable(row.detail)))
            continue
        _, text, cell, domain, number = row
        if number is not None:
            source = Source(name, row.line, number)
        fault = find_bad_character(text, table.is_sound)
        if fault:
            rejected.append(RejectedRow(source, Reason.BROKEN_ROW, show_undecodable(shorten(text)), fault))
            continue
        found = meanings[cell] if cell in meanings else labels.find(cell)
        label = found if isinstance(found, int) else None
        if not isinstance(found, int) and text and not text.isspace():
            detail = _describe_label(found, cell)
            rejected.append(RejectedRow(source, found, text, detail))
            continue
        if domain not in domains:
            domains[domain] = show_undecodable(drop_unseen(domain).strip()) or None
        reviews.append(Review(text, label, source, domains[domain]))
    return reviews, rejected, scale


def _watch_broken(rows: Iterable[_Row], name: str) -> Iterator[_Row]:
    """Yield the rows of a file.

    Raises:
        DataError: when so many are broken that keeping them would fill the memory and help nobody.
    """
    n_ahead = 0
    for row in rows:
        n_ahead += 1 if isinstance(row, BrokenRow) else -1
        if n_ahead > MAX_BROKEN_ROWS and isinstance(row, BrokenRow):
            raise DataError(
                f"{MAX_BROKEN_ROWS:,} more rows are broken than sound up to here; of the last one {row.detail}",
                where=f"{name}, line {row.line}",
                next_step="export the file again",
            )
        yield row


def _open_rows(
    table: Table, task: Task, options: ReadOptions, labels: LabelReader
) -> tuple[Iterator[RawRow | BrokenRow], Column]:
    """Return the rows of a table, and its label column."""
    if has_chats(table, options.text_column, options.label_column):
        return iter_labelled(table, task, labels), Column(None, False, table.header_at)
    columns = find_columns(
        table.header,
        table.header_at,
        text=options.text_column,
        label=options.label_column,
        domain=options.domain_column,
        wants_stars=options.star_threshold is not None,
    )
    if options.label_column is None and (predicted := find_predictions(table.header)):
        told = ", ".join(map(repr, predicted[:_TOLD]))
        say(f"{table.header_at}: the labels are those of the column {table.header[columns.label]!r}, not of {told}")
    return table.iter_rows(columns), Column(table.header[columns.label], columns.has_stars, table.header_at)


def find_bad_character(text: str, is_sound: bool) -> str:
    """Return what makes a text no review, or "": its length, a zero byte, or half a character."""
    if len(text) > MAX_TEXT_CHARS:
        return describe_long("review", MAX_TEXT_CHARS)
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
