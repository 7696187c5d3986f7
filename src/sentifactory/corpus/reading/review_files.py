"""Reads reviews from files of any format: rows with the line on which each begins, or one clear error.

An invalid row in an otherwise valid file is rejected, with line and reason; an invalid file is a DataError. Every row
becomes a review or is rejected. Cells are always text: "NA", "null" and "None" are reviews like any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from sentifactory.clean_text import drop_unseen
from sentifactory.corpus.files.columns import find_columns, find_predictions, names_stars
from sentifactory.corpus.files.encodings import show_undecodable
from sentifactory.corpus.files.limits import MAX_BROKEN_ROWS, MAX_TEXT_CHARS, describe_long, shorten
from sentifactory.corpus.files.open_file import open_file
from sentifactory.corpus.files.tables import BrokenRow, RawRow, Table
from sentifactory.corpus.reading.chat_rows import (
    has_chats,
    has_unknown_keys,
    iter_column_texts,
    iter_labelled,
    iter_split_prompts,
)
from sentifactory.corpus.reading.label_column import Column
from sentifactory.corpus.reading.label_reader import LabelReader
from sentifactory.corpus.reading.label_scales import Scale, read_cells
from sentifactory.corpus.reading.read_result import InputFile, ReadOptions, ReadResult, RejectedRow
from sentifactory.corpus.reading.row_errors import (
    FIX_FILE,
    describe_other_class,
    describe_rejected,
    refuse_missing_labels,
    refuse_other_labels,
    refuse_unsound,
)
from sentifactory.corpus.reading.seen_texts import SeenFile
from sentifactory.errors import DataError
from sentifactory.records import Reason, Review, Source
from sentifactory.system.formats import CELL_CHARS, cut_text
from sentifactory.system.progress import say
from sentifactory.task.task import Task

_SHOWN_COLUMNS = 5

_Row = TypeVar("_Row")


def read_source(
    source: str | Path, task: Task, options: ReadOptions | None = None, *, can_map: bool = True
) -> ReadResult:
    """Read a file as reviews and rejected rows.

    Args:
        source: a .csv, .tsv, .txt, .jsonl, .json, .parquet or .xlsx file, or one of them with the suffix of another.
        task: says which labels there are.
        options: how to read the file.
        can_map: whether the command has options that map the words of a file, to be suggested in errors.

    Raises:
        DataError: when the file cannot be used: it is missing, empty, of another format or in an unknown encoding,
            lacks a column, has no usable row, more broken rows than valid ones, or labels of another task.
        ConfigError: when an option does not fit.
    """
    result, labels = _read_file(Path(source), str(source), task, options or ReadOptions(), can_map=can_map)
    refuse_unsound(result, str(source), labels)
    if (warning := describe_other_class(result, str(source), labels)) is not None:
        say(warning)
    return result


def read_reviews(path: str | Path, task: Task, options: ReadOptions | None = None) -> list[Review]:
    """Read a labelled file of which every row must be valid, in the order of the file.

    Rows without a text are kept (with or without a label), so that cleaning can count them.

    Args:
        path: as for `read_source`.
        task: says which labels there are.
        options: how to read the file.

    Raises:
        DataError: like `read_source`, and when any row is broken or has no known label.
        ConfigError: when an option does not fit.
    """
    result, labels = _read_file(Path(path), str(path), task, options or ReadOptions(), can_map=False)
    if result.rejected:
        refuse_missing_labels(result)
        refuse_other_labels(result, labels)
        raise describe_rejected(result, labels)
    refuse_unsound(result, str(path), labels)
    return result.reviews


def read_texts(path: str | Path, task: Task, options: ReadOptions | None = None) -> list[Review]:
    """Read the texts of a file, in its order; it need not have labels.

    Broken rows are skipped if they are the minority.

    Args:
        path: as for `read_source`.
        task: its prompt is recognised in training files.
        options: column and encoding.

    Raises:
        DataError: when the file cannot be used or has no rows.
    """
    reviews = _read_seen(path, task, options or ReadOptions(), None, are_reviews=True).reviews
    return [review for review in reviews if not find_bad_character(review.text, is_sound=False)]


def read_seen(
    path: str | Path,
    task: Task,
    options: ReadOptions | None = None,
    *,
    max_rows: int | None = None,
    is_trained_on: bool = False,
) -> SeenFile:
    """Read all texts that training on a file would see: the reviews as `read_texts`, and the texts around them.

    If the texts of a table are whole prompts, the reviews are what is between the parts that nearly all of them share.

    Args:
        path: as for `read_source`.
        task: as for `read_texts`.
        options: likewise.
        max_rows: read only the first rows; None: all.
        is_trained_on: whether texts under unknown keys are read as well: a recipe may name these keys to
            LLaMA-Factory. In a test file it must be known which texts are the reviews.

    Raises:
        DataError: like `read_texts`.
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
    table = open_file(Path(path), options.encoding)
    is_foreign = is_trained_on and options.text_column is None and has_unknown_keys(table)
    if is_foreign or has_chats(table, options.text_column, options.label_column, needs_label=False):
        rows = iter_split_prompts(table, task, takes_any_words=is_trained_on)
    else:
        columns = find_columns(
            table.header,
            table.header_at,
            text=options.text_column,
            needs_label=False,
            can_name=options.can_name_columns,
        )
        rows = iter_column_texts(table, None if are_reviews else task, columns)
    found = SeenFile()
    broken = []
    for row in _limit_broken_rows(rows, str(path)):
        if isinstance(row, BrokenRow):
            broken.append(row)
        elif max_rows is None or row[0].row < max_rows:
            found.add(str(path), *row)
        else:
            break
    if len(broken) > len(found.reviews):
        what = broken[0].detail[0].upper() + broken[0].detail[1:]
        raise DataError(what, where=f"{path}, line {broken[0].line}", next_step=FIX_FILE, code="rows-broken")
    if not found.reviews:
        raise DataError(
            "The file has a header and no rows",
            where=str(path),
            next_step="give a file with a review",
            code="file-empty",
        )
    return found


def _read_file(
    path: Path, name: str, task: Task, options: ReadOptions, *, can_map: bool
) -> tuple[ReadResult, LabelReader]:
    labels = LabelReader(task, options.label_map, options.star_threshold, can_map=can_map)
    table = open_file(path, options.encoding)
    reviews, rejected, scale = collect_rows(table, name, task, options, labels)
    inputs = [InputFile(name, table.sha256, len(reviews) + len(rejected), scale)]
    return ReadResult(reviews, rejected, table.encoding, table.format, inputs), labels


def collect_rows(
    table: Table, name: str, task: Task, options: ReadOptions, labels: LabelReader
) -> tuple[list[Review], list[RejectedRow], Scale]:
    """Return the rows of a table as reviews and rejected rows, and what its label column holds.

    Args:
        table: an open file of any format.
        name: of the file, as the user gave it.
        task: says which labels there are.
        options: how to read the file.
        labels: reads the label cells.

    Raises:
        DataError: when the columns cannot be found, or the label column is ambiguous.
        ConfigError: when the threshold does not lie on its scale.
    """
    opened, column = _open_rows(table, task, options, labels)
    rows = list(_limit_broken_rows(opened, name))
    cells = Counter(row.label for row in rows if isinstance(row, RawRow) and row.text and not row.text.isspace())
    meanings, scale = read_cells(cells, column, labels)
    reviews: list[Review] = []
    rejected: list[RejectedRow] = []
    domains: dict[str, str | None] = {"": None}  # one string per domain, however many rows have it
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


def _limit_broken_rows(rows: Iterable[_Row], name: str) -> Iterator[_Row]:
    """Yield the rows of a file.

    Raises:
        DataError: when so many are broken that keeping them all would fill the memory.
    """
    n_ahead = 0
    for row in rows:
        n_ahead += 1 if isinstance(row, BrokenRow) else -1
        if n_ahead > MAX_BROKEN_ROWS and isinstance(row, BrokenRow):
            raise DataError(
                f"Up to here {MAX_BROKEN_ROWS:,} more rows are broken than valid; in the last one {row.detail}",
                where=f"{name}, line {row.line}",
                next_step="export the file again",
                code="rows-broken",
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
        can_name=options.can_name_columns,
    )
    name = table.header[columns.label]
    if options.label_column is None and (predicted := find_predictions(table.header)):
        others = ", ".join(map(repr, predicted[:_SHOWN_COLUMNS]))
        say(f"{table.header_at}: reading the labels from the column {name!r}, not from {others}")
    return table.iter_rows(columns), Column(name, names_stars(name), table.header_at)


def find_bad_character(text: str, is_sound: bool) -> str:
    """Return why a text is not a review: its length, a NUL byte, or half a character; "" if it is one."""
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
    return f"the label is {cut_text(show_undecodable(cell), CELL_CHARS)!r}"
