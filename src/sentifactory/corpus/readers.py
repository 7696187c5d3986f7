"""Reads reviews from files: recognised columns, recognised labels, and the line on which each row really begins.

Covered: CSV in UTF-8 with or without BOM. A cell is text and nothing else: "NA", "null" and "None" are reviews like
any other. Not covered yet: other formats and other encodings; both are named in the error.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sentifactory.corpus.cleaning import Reason
from sentifactory.corpus.labels import build_label_index, describe_labels, find_label
from sentifactory.corpus.manifest import InputFile, hash_file
from sentifactory.errors import DataError, SentiFactoryError
from sentifactory.records import Review, Source
from sentifactory.task import Task

TEXT_COLUMNS = ("text", "text_a", "review", "评论")
LABEL_COLUMNS = ("label", "sentiment", "标签")
# csv refuses cells over 128 KiB by default; a long review is still a review. The largest value every platform takes.
_MAX_CELL_CHARS = 2**31 - 1
_LISTED_LINES = 5


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What the user says about a file; None: it is recognised.

    Attributes:
        text_column: header of the column that holds the reviews.
        label_column: header of the column that holds the labels.
        domain_column: header of the column that says what a review is about.
        label_map: label name, answer value or index of the task by the word in the file; nothing else is accepted then.
        star_threshold: stars above it are positive, below it negative; exactly so many are rejected.
        encoding: name of the text encoding, as Python knows it.
    """

    text_column: str | None = None
    label_column: str | None = None
    domain_column: str | None = None
    label_map: Mapping[str, str] | None = None
    star_threshold: float | None = None
    encoding: str | None = None


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row of an otherwise sound file that is no review.

    Attributes:
        source: file and line.
        reason: the kind of fault, to be counted by.
        text: the review where it is known, else the row as it stands.
        detail: what exactly is wrong, with the bad value in it.
    """

    source: Source
    reason: Reason
    text: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Intake:
    """All rows of a source: each is either a review or rejected.

    Attributes:
        reviews: in the order of the file; rows without a text are among them (whoever cleans counts them).
        rejected: in the order of the file.
        encoding: the text encoding that was found or given; None for formats that have none (Parquet, Excel).
        format: csv, tsv, jsonl, json, parquet, excel, ...
        inputs: the files read; their rows add up to reviews and rejected.
    """

    reviews: list[Review]
    rejected: list[RejectedRow]
    encoding: str | None
    format: str
    inputs: list[InputFile]


@dataclass(frozen=True, slots=True)
class RawRow:
    """The two cells of a row that matter, as they stand in the file."""

    text: str
    label: str
    source: Source


@dataclass(slots=True)
class _Problems:
    """Collects the bad rows of a file: the first is told in full, the others by their lines, all in one message."""

    first: DataError | None = None
    more_lines: list[int] = field(default_factory=list)
    n_more: int = 0

    def add(self, line: int, error: DataError) -> None:
        if self.first is None:
            self.first = error
            return
        self.n_more += 1
        if len(self.more_lines) < _LISTED_LINES:
            self.more_lines.append(line)

    def raise_first(self) -> None:
        if self.first is None:
            return
        what = self.first.what
        if self.n_more:
            lines = ", ".join(map(str, self.more_lines)) + (", ..." if self.n_more > len(self.more_lines) else "")
            what += f" ({self.n_more} more bad row{'s' * (self.n_more > 1)}: line{'s' * (self.n_more > 1)} {lines})"
        raise DataError(
            what, where=self.first.where, expected=self.first.expected, next_step=self.first.next_step
        ) from self.first


def read_reviews(path: str | Path, task: Task) -> list[Review]:
    """Read a labelled CSV file as reviews, in the order of the file.

    Rows without a text are kept (with or without a label), so that whoever cleans the reviews can count them.

    Args:
        path: a `.csv` file with a text column and a label column (a `qid` and other columns are passed over).
        task: says which labels there are.

    Raises:
        DataError: when the file is missing, empty, not a CSV file in UTF-8, lacks a column, or has a row that is
            broken or carries an unknown label. Nothing of it is returned then.
    """
    path = Path(path)
    index = build_label_index(task)
    problems = _Problems()
    reviews: list[Review] = []
    for row in _iter_rows(path, problems):
        label = find_label(row.label, index)
        if label is None and row.text.strip():
            problems.add(row.source.line, _describe_unknown_label(row, index))
        reviews.append(Review(row.text, label, row.source))
    problems.raise_first()
    if not reviews:
        raise DataError(
            "The file has a header and no rows", where=str(path), next_step="give a file with at least one review"
        )
    return reviews


def read_source(source: str | Path, task: Task, options: ReadOptions | None = None) -> Intake:
    """Read a file as reviews and rejected rows.

    Raises:
        DataError: when the file as a whole cannot be used.
    """
    reviews = read_reviews(source, task)
    inputs = [InputFile(str(source), hash_file(Path(source)), len(reviews))]
    return Intake(reviews, [], "utf-8", "csv", inputs)


def _describe_unknown_label(row: RawRow, index: dict[str, int]) -> DataError:
    word = row.label if len(row.label) <= 40 else row.label[:40] + "…"
    return DataError(
        f"The label is {word!r}" if word.strip() else "The label is missing",
        where=str(row.source),
        expected=describe_labels(index),
        next_step="correct or remove the row",
    )


def _iter_rows(path: Path, problems: _Problems) -> Iterator[RawRow]:
    """Yield the rows of a CSV file; rows of the wrong length go to `problems`."""
    records = _iter_csv(path)
    first = next(records, None)
    if first is None:
        raise DataError("The file is empty", where=str(path), expected="a header and reviews, as in label,review")
    header = first[1]
    text_column = _find_column(header, TEXT_COLUMNS, "text", path)
    label_column = _find_column(header, LABEL_COLUMNS, "label", path)
    for line, cells in records:
        source = Source(str(path), line)
        if len(cells) != len(header):
            problems.add(
                line,
                DataError(
                    f"The row has {len(cells)} cell{'s' * (len(cells) != 1)} and the header has {len(header)}",
                    where=str(source),
                    next_step="put the review in double quotes if it holds a comma or a line break",
                ),
            )
            continue
        yield RawRow(cells[text_column], cells[label_column], source)


def _find_column(header: Sequence[str], known: Sequence[str], kind: str, path: Path) -> int:
    """Return the position of the one column whose name is known.

    Raises:
        DataError: when there is none, or more than one.
    """
    names = [name.strip().casefold() for name in header]
    found = [position for position, name in enumerate(names) if name in known]
    if len(found) == 1:
        return found[0]
    shown = ", ".join(repr(name if len(name) <= 30 else name[:30] + "…") for name in header[:10])
    raise DataError(
        f"The columns are {shown}, and {'none' if not found else 'more than one'} of them is a {kind} column",
        where=f"{path}, line 1",
        expected=f"one column named {' or '.join(known)}",
        next_step="name the columns in the first line, as in label,review",
    )


def _iter_csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which each record begins (from 1) and its cells; blank lines are no records.

    Raises:
        DataError: when the file cannot be read, is not UTF-8, holds NUL bytes, or its quotes do not match.
    """
    _check_readable(path)
    csv.field_size_limit(_MAX_CELL_CHARS)
    begins_at = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            records = csv.reader(_refuse_nul(stream, path), strict=True)
            for cells in records:
                if cells:
                    yield begins_at, cells
                begins_at = records.line_num + 1
    except UnicodeDecodeError:
        raise _describe_encoding(path) from None
    except OSError as error:
        raise DataError(f"The file cannot be read ({error.strerror})", where=str(path)) from error
    except csv.Error as error:
        raise DataError(
            "A quoted cell is never closed" if "end of data" in str(error) else f"The row is broken ({error})",
            where=f"{path}, line {begins_at}",
            expected="cells that begin and end with a double quote, with quotes inside them doubled",
            next_step="correct the quotes of this row",
        ) from error


def _check_readable(path: Path) -> None:
    """Raise a DataError unless `path` is a CSV file."""
    if not path.exists():
        raise DataError("The file does not exist", where=str(path), next_step="check the path")
    if not path.is_file():
        raise DataError("This is not a file", where=str(path), expected="a CSV file")
    if path.suffix.lower() != ".csv":
        raise DataError(
            f"Files of the kind {path.suffix or 'without an ending'!r} are not read",
            where=str(path),
            expected="a .csv file",
            next_step="export the reviews as CSV in UTF-8",
        )


def _refuse_nul(lines: Iterator[str], path: Path) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if "\0" in line:
            raise DataError(
                "The line holds a NUL byte, so this is no text in UTF-8",
                where=f"{path}, line {number}",
                next_step="save the file as CSV in UTF-8 (a file in UTF-16 looks like this)",
            )
        yield line


def _describe_encoding(path: Path) -> SentiFactoryError:
    """Return an error with the first line that is not UTF-8."""
    with path.open("rb") as stream:
        start = stream.read(2)
        stream.seek(0)
        if start in (b"\xff\xfe", b"\xfe\xff"):
            what, where, encoding = "The file is in UTF-16, not in UTF-8", str(path), "UTF-16"
        else:
            number, byte = _find_undecodable(stream)
            what, where = f"The file is not UTF-8 (byte 0x{byte:02X})", f"{path}, line {number}"
            encoding = "GB18030"  # by far the commonest other encoding of Chinese text
    return DataError(
        what,
        where=where,
        expected="UTF-8",
        next_step=f"save it as UTF-8, or convert it: iconv -f {encoding} -t UTF-8 {path.name} > utf8.csv",
    )


def _find_undecodable(lines: Iterator[bytes]) -> tuple[int, int]:
    number = 0
    for number, line in enumerate(lines, start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            return number, line[error.start]
    return number, 0
