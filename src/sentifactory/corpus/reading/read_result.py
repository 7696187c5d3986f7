"""How to read a file of reviews, and the result: reviews and rejected rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sentifactory.corpus.reading.label_scales import Scale
from sentifactory.records import Reason, Review, Source


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read a file; None: detect it.

    Attributes:
        text_column: name of the column of the reviews.
        label_column: name of the column of the labels.
        domain_column: name of the column of the domains.
        label_map: label name, answer value or synonym of the task by the word in the file; no other word is accepted
            then.
        star_threshold: stars above it are positive, below it negative; equal to it rejected, or neutral if the task
            has that label.
        encoding: Python's name of the text encoding.
        can_name_columns: whether the command has options that name the columns, to be suggested in errors.
    """

    text_column: str | None = None
    label_column: str | None = None
    domain_column: str | None = None
    label_map: Mapping[str, str] | None = None
    star_threshold: float | None = None
    encoding: str | None = None
    can_name_columns: bool = field(default=False, compare=False)  # changes words, and nothing that is read


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that is not a review, in an otherwise valid file.

    Attributes:
        source: file and line.
        reason: the kind of fault.
        text: the review if it is known, otherwise the whole row.
        detail: what exactly is wrong, with the invalid value.
    """

    source: Source
    reason: Reason
    text: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ReadResult:
    """All rows of a source: each is either a review or rejected.

    Attributes:
        reviews: in the order of the file, including rows without a text, which cleaning counts.
        rejected: in the order of the file.
        encoding: the text encoding that was detected or given; None for binary formats (Parquet, Excel).
        format: csv, tsv, jsonl, json, parquet, excel, ...
        inputs: the files read; their rows add up to reviews and rejected.
    """

    reviews: list[Review]
    rejected: list[RejectedRow]
    encoding: str | None
    format: str
    inputs: list[InputFile]


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that reviews were read from.

    Attributes:
        file: its name as the user gave it, or within its package.
        sha256: of its bytes.
        n_rows: rows read from it, empty ones included.
        scale: what its label column holds; None for a package, whose labels are known.
    """

    file: str
    sha256: str
    n_rows: int
    scale: Scale | None = None
