"""The texts that a model sees in training: the reviews of a file, and all other texts, which may contain reviews."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sentifactory.corpus.reading.chat_rounds import Round
from sentifactory.corpus.reading.prompt_frames import NOT_SPLIT, Kind, SplitPrompt
from sentifactory.records import Review, Source


@dataclass(slots=True)
class SeenFile:
    """The texts of one or several files.

    Attributes:
        reviews: one for each row, or for each round of a chat.
        passages: the texts around them, each once, and the prompts that may have been split in the wrong place.
        n_unsplit: reviews of which it is unknown what else is in their text.
    """

    reviews: list[Review] = field(default_factory=list)
    passages: dict[str, Passage] = field(default_factory=dict)
    n_unsplit: int = 0

    def add(self, file: str, one: Round, split: SplitPrompt) -> None:
        """Add a row of a file."""
        source = Source(file, one.line, one.number)
        self.reviews.append(Review(split.review, None, source))
        self.n_unsplit += split.kind in NOT_SPLIT
        if split.kind != Kind.KNOWN:
            self._add_passages([one.review], source, is_review=split.kind == Kind.FOUND)
        self._add_passages([" ".join(split.question).strip(), one.answer, *one.around], source)

    def _add_passages(self, texts: Iterable[str], source: Source, *, is_review: bool = False) -> None:
        for text in texts:
            if text:
                self.passages.setdefault(text, Passage(text, source, is_review))


def join_seen(files: Iterable[SeenFile]) -> SeenFile:
    """Merge the texts of several files."""
    joined = SeenFile()
    for one in files:
        joined.reviews += one.reviews
        joined.passages = one.passages | joined.passages
        joined.n_unsplit += one.n_unsplit
    return joined


@dataclass(frozen=True, slots=True)
class Passage:
    """A training text that may contain reviews.

    Attributes:
        text: the text.
        source: file and line.
        is_review: whether it seems to be one review, which contains others only by chance.
    """

    text: str
    source: Source | None
    is_review: bool = False
