"""What a training file shows to a model: the reviews in it, and all other words, which may hold reviews as well."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sentifactory.corpus.chat_rows import Round
from sentifactory.corpus.containment import Passage
from sentifactory.corpus.prompt_frames import UNPARTED, Kind, Parted
from sentifactory.records import Review, Source


@dataclass(slots=True)
class SeenFile:
    """The texts of one file or of several.

    Attributes:
        reviews: one for each row, or for each round of a chat.
        passages: the texts around them, each once, and the prompts in which the review could be another part.
        n_unparted: of how many reviews it is not known what else is in the text.
    """

    reviews: list[Review] = field(default_factory=list)
    passages: dict[str, Passage] = field(default_factory=dict)
    n_unparted: int = 0

    def add(self, file: str, one: Round, parted: Parted) -> None:
        """Take in a row of a file."""
        source = Source(file, one.line, one.number)
        self.reviews.append(Review(parted.review, None, source))
        self.n_unparted += parted.kind in UNPARTED
        if parted.kind != Kind.KNOWN:
            self._add_passages([one.review], source, is_review=parted.kind == Kind.FOUND)
        self._add_passages([" ".join(parted.question).strip(), one.answer, *one.around], source)

    def _add_passages(self, texts: Iterable[str], source: Source, *, is_review: bool = False) -> None:
        for text in texts:
            if text:
                self.passages.setdefault(text, Passage(text, source, is_review))


def join_seen(files: Iterable[SeenFile]) -> SeenFile:
    """Return what several files show together."""
    joined = SeenFile()
    for one in files:
        joined.reviews += one.reviews
        joined.passages = one.passages | joined.passages
        joined.n_unparted += one.n_unparted
    return joined
