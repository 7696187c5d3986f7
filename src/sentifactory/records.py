"""The records that pass from room to room: plain frozen data, no behaviour that needs a model or a file."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Source:
    """Where a review came from.

    Attributes:
        file: path or data set name, as the user gave it.
        line: 1-based line in that file on which the row begins (the header is line 1).
        round: which round of a chat of several reviews it is, from 1; None for all other rows.
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
        text: the words, as they are; a review is data and is never rewritten.
        label: index into the task's labels, or None where it is not known.
        source: file and line, or None for a text typed in by hand.
        domain: what it is about (books, hotels, ...), or None where that is not known.
    """

    text: str
    label: int | None = None
    source: Source | None = None
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What an engine answered to one review.

    Attributes:
        label: index into the task's labels; None when the reply could not be parsed. None counts as wrong and is
            reported apart: it is never turned into a label.
        probabilities: (n_labels,) that sum to 1, or None where the engine only gives words.
        log_likelihoods: (n_labels,) natural logarithm of the probability with which a language model writes the words
            of each label; `probabilities` are these brought to the sum 1. None where there is no such thing.
        raw: the reply, unchanged ("" for engines that give no words).
        latency_s: seconds from sending the review to having its answer.
    """

    label: int | None
    probabilities: tuple[float, ...] | None = None
    raw: str = ""
    latency_s: float = 0.0
    log_likelihoods: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """Reviews in three parts of which no two share a text."""

    train: list[Review] = field(default_factory=list)
    val: list[Review] = field(default_factory=list)
    test: list[Review] = field(default_factory=list)

    def parts(self) -> dict[str, list[Review]]:
        """Return the parts by name, in the order train, val, test."""
        return {"train": self.train, "val": self.val, "test": self.test}
