"""The records that the packages exchange: reviews, predictions, splits, rejected rows. Plain frozen data."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

BALANCED = "balanced"
STRATIFIED = "stratified"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a review came from.

    Attributes:
        file: path or data set name, as the user gave it.
        line: 1-based line in that file on which the row begins (the header is line 1).
        round: 1-based round in a chat of several reviews; None for all other rows.
    """

    file: str
    line: int
    round: int | None = None

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}" + (f", round {self.round}" if self.round else "")


@dataclass(frozen=True, slots=True)
class Review:
    """One review.

    Attributes:
        text: the text.
        label: index into the task's labels, or None where it is unknown.
        source: file and line, or None for a text that was typed in.
        domain: what it is about (books, hotels, ...), or None where that is unknown.
    """

    text: str
    label: int | None = None
    source: Source | None = None
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer of an engine to one review.

    Attributes:
        label: index into the task's labels; None when the reply could not be parsed. None counts as wrong, is reported
            separately and is never turned into a label.
        probabilities: (n_labels,) that sum to 1, or None where the engine gives text only.
        log_likelihoods: (n_labels,) natural logarithm of the probability that a language model generates the answer of
            each label; `probabilities` are these, normalised. None for other engines and modes.
        raw: the reply, unchanged ("" for engines that give no text).
        latency_s: seconds from sending the review to receiving its answer.
    """

    label: int | None
    probabilities: tuple[float, ...] | None = None
    raw: str = ""
    latency_s: float = 0.0
    log_likelihoods: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """Reviews in three parts; no text is in two of them."""

    train: list[Review] = field(default_factory=list)
    val: list[Review] = field(default_factory=list)
    test: list[Review] = field(default_factory=list)

    def parts(self) -> dict[str, list[Review]]:
        """Return the parts by name, in the order train, val, test."""
        return {"train": self.train, "val": self.val, "test": self.test}


class Reason(StrEnum):
    """Why a row is in no part of the data set."""

    BROKEN_ROW = "broken row"  # too many or too few cells, unmatched quotes, invalid JSON, NUL bytes
    UNKNOWN_LABEL = "unknown label"
    NO_LABEL = "no label"
    MIDDLE_STARS = "middle stars"  # neither above nor below the stated threshold
    TOO_LONG = "too long"  # more tokens than the limit for training
    EMPTY = "empty"
    REPEAT = "repeat"
    BOTH_LABELS = "more than one label"
    LEAK = "as a held-out review"  # an exact or near duplicate of a test review
    SURPLUS = "surplus"  # a valid row that is left out to balance the classes or by a limit


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that was left out."""

    review: Review
    reason: Reason
    detail: str = ""
