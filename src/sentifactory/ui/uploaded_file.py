"""Looks into an uploaded file: its columns, its first rows, and the cells of its label column.

The columns of texts and labels are guessed (`column_guesses`); the user can choose others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sentifactory.corpus.files.columns import Columns
from sentifactory.corpus.files.encodings import show_undecodable
from sentifactory.corpus.files.open_file import open_file
from sentifactory.corpus.files.tables import BrokenRow, RawRow, Table
from sentifactory.corpus.reading.chat_rows import has_chats
from sentifactory.corpus.reading.read_result import ReadOptions
from sentifactory.system.formats import cut_text
from sentifactory.ui.column_guesses import LabelWords, guess_label, guess_text
from sentifactory.ui.error_sentences import PageError
from sentifactory.ui.page_words import WORDS

SHOWN_ROWS = 5
SHOWN_COLUMNS = 8
_SHOWN_CHARS = 120
_SAMPLED_ROWS = 300
_MAX_COLUMNS = 60  # of a wider table only the first are offered
# Errors that a choice of other columns mends.
COLUMN_CODES = frozenset({"column-twice", "column-empty"})
_KNOWN_ENCODINGS = {"utf-8": "UTF-8", "utf-8-sig": "UTF-8", "gb18030": "GB18030", "big5": "Big5"}


@dataclass(frozen=True, slots=True)
class FileChoices:
    """How the user wants a file to be read; None: as it is guessed or detected.

    Attributes:
        text_column: of the reviews.
        label_column: of the labels.
        task: name of an offered task, or `NEW_TASK` for one with the labels of the file.
        star_threshold: stars above it are positive, below it negative.
        encoding: of the text.
    """

    text_column: str | None = None
    label_column: str | None = None
    task: str | None = None
    star_threshold: float | None = None
    encoding: str | None = None

    def to_read_options(self) -> ReadOptions:
        """Return the choices in the form that the readers take."""
        return ReadOptions(
            text_column=self.text_column,
            label_column=self.label_column,
            star_threshold=self.star_threshold,
            encoding=self.encoding,
        )


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """What is in an uploaded file.

    Attributes:
        columns: the names of its columns, in the order of the file; () where it holds chats, which have none.
        rows: the first rows, cut for display: cells in the order of `columns`.
        text_column: the chosen or guessed one; None where it could not be guessed.
        label_column: likewise.
        cells: how often each cell of the label column occurs beside a text.
        n_rows: number of rows with a text.
        n_broken: number of rows that cannot be read.
        format: csv, tsv, jsonl, excel, ...
        encoding: of its text, as people write it; None for binary formats.
        where: file and line of the header, for messages.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_column: str | None
    label_column: str | None
    cells: Counter[str]
    n_rows: int
    n_broken: int
    format: str
    encoding: str | None
    where: str


def inspect_upload(
    path: str | Path, choices: FileChoices | None = None, words: LabelWords | None = None
) -> UploadedFile:
    """Return what is in a file.

    Args:
        path: of the upload.
        choices: the columns and the encoding that the user chose; a column that the file does not have is ignored,
            since the choice may be that of another file.
        words: by which labels are recognised, besides the usual ones for sentiments.

    Raises:
        DataError: when the file cannot be read.
        PageError: when it holds no review.
        ConfigError: when the package that reads its format is missing, or one column is chosen twice.
    """
    choices, words = choices or FileChoices(), words or LabelWords()
    table = open_file(Path(path), choices.encoding)
    encoding = table.encoding and _KNOWN_ENCODINGS.get(table.encoding, table.encoding.upper())
    if has_chats(table, None, None):
        return UploadedFile((), (), None, None, Counter(), 0, 0, table.format, encoding, table.header_at)
    names = tuple(table.header[:_MAX_COLUMNS])
    sample = _read_sample(table, len(names))
    text, label = (name if name in names else None for name in (choices.text_column, choices.label_column))
    if text is not None and text == label:
        raise PageError(*WORDS["same_column"], code="column-twice")
    text = text or guess_text(names, sample, words, taken=label)
    label = label or guess_label(names, sample, words, taken=text)
    cells: Counter[str] = Counter()
    n_rows = n_blank = 0
    broken: list[BrokenRow] = []
    if text is not None:
        columns = Columns(names.index(text), names.index(label or text), None)
        for row in table.iter_rows(columns):
            if not isinstance(row, RawRow):
                broken.append(row)
            elif not row.text or row.text.isspace():
                n_blank += 1
            else:
                n_rows += 1
                cells[row.label] += 1
    if text is not None and not n_rows:
        _refuse_empty(broken, n_blank)
    shown = tuple(tuple(_shorten(cell) for cell in row) for row in sample[:SHOWN_ROWS])
    return UploadedFile(
        names,
        shown,
        text,
        label,
        cells if label is not None else Counter(),
        n_rows,
        len(broken),
        table.format,
        encoding,
        table.header_at,
    )


def _refuse_empty(broken: Sequence[BrokenRow], n_blank: int) -> None:
    """Refuse a file without a single review.

    Raises:
        PageError: always, with the reason.
    """
    if n_blank:
        raise PageError(*WORDS["no_texts"], code="column-empty")
    if not broken:
        raise PageError(*WORDS["no_rows"], code="file-empty")
    n, line = len(broken), broken[0].line
    raise PageError(
        f"None of the {n} rows can be read; the first is line {line}: {broken[0].detail}. Correct the rows, so that "
        "each has a cell for every column.",
        f"{n} 行均无法读取（从第 {line} 行起），可能是单元格数与列数不一致。请修改文件，使每行的单元格数与列数相同。",
        code="rows-broken",
    )


def _read_sample(table: Table, width: int) -> list[tuple[str, ...]]:
    """Return the first rows with all their cells; the readers give three columns at a time."""
    by_column: list[list[str]] = []
    for start in range(0, width, 3):
        first, second, third = (min(start + at, width - 1) for at in range(3))
        rows = [
            row
            for row in islice(table.iter_rows(Columns(first, second, third)), _SAMPLED_ROWS)
            if isinstance(row, RawRow)
        ]
        cells = zip(*((row.text, row.label, row.domain) for row in rows), strict=True)
        by_column += [list(column) for column in cells][: width - start]
    return list(zip(*by_column, strict=False))


def _shorten(cell: str) -> str:
    return cut_text(" ".join(show_undecodable(cell).split()), _SHOWN_CHARS)
