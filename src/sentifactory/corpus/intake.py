"""What the user says about a file of reviews, and what comes out of it: reviews and rejected rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sentifactory.corpus.cleaning import Reason
from sentifactory.corpus.manifest import InputFile
from sentifactory.records import Review, Source


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What the user says about a file; None: it is recognised.

    Attributes:
        text_column: header of the column that holds the reviews.
        label_column: header of the column that holds the labels.
        domain_column: header of the column that says what a review is about.
        label_map: label name, answer value or synonym of the task by the word in the file; nothing else is accepted
            then.
        star_threshold: stars above it are positive, below it negative; exactly so many are rejected, or neutral where
            the task has that label.
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
