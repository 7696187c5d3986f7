"""Counts the cells of a label column by what they can mean: labels of the task, stars, or both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sentifactory.corpus.reading.label_reader import MAX_STARS, LabelReader, count_stars
from sentifactory.records import Reason
from sentifactory.task.label_names import normalise_label

# Up to this share of invalid cells does not decide what a column holds.
FEW_CELLS = 0.05
LISTED = 6
# The usual scales: 5, 10 and 100 stars.
SCALE_TOPS = (5, 10, MAX_STARS)
_COMMON_CELLS = 10


@dataclass(frozen=True, slots=True)
class Column:
    """The label column of a file.

    Attributes:
        name: in the header; None for answers in chats, which are never stars.
        names_stars: whether the name says that it holds stars.
        where: file and line of the header, for messages.
    """

    name: str | None
    names_stars: bool
    where: str


class LabelCells:
    """The cells of a label column by what they can mean.

    Args:
        cells: how often each cell occurs next to a text.
        column: the column of the cells.
        labels: what the user said about labels.

    Attributes:
        both: how often each number occurs that is a label and can also be a number of stars.
        stars: how often each number of stars occurs that is not a label.
        numbers: both of these.
        n_words: cells that state a label and cannot be stars.
        n_all: all cells that are not empty.
        n_minus_one: cells of -1 where the task has no such label.
        n_few: this many cells may be invalid without deciding what the column holds.
        is_share: whether the numbers are shares between 0 and 1.
    """

    def __init__(self, cells: Mapping[str, int], column: Column, labels: LabelReader) -> None:
        self.cells, self.column, self.labels = cells, column, labels
        self.both: Counter[float] = Counter()
        self.stars: Counter[float] = Counter()
        self.n_words = self.n_all = self.n_minus_one = 0
        for cell, n in cells.items():
            stars, label = count_stars(cell), labels.find_own(cell)
            self.n_all += n if label != Reason.NO_LABEL else 0
            self.n_minus_one += n if normalise_label(cell) == "-1" and label == Reason.UNKNOWN_LABEL else 0
            if stars is not None:
                (self.both if isinstance(label, int) else self.stars)[stars] += n
            elif isinstance(label, int):
                self.n_words += n
        self.numbers = self.both + self.stars
        n_shares = sum(n for stars, n in self.stars.items() if 0 < stars < 1 and stars != 0.5)
        self.n_few = FEW_CELLS * self.n_all
        self.is_share = n_shares > self.n_few and max(self.numbers) <= 1

    def find_range(self) -> tuple[float, float]:
        """Return the fewest and the most stars; a few of more than ten are typing errors, such as 45 for 4.5."""
        usual = [stars for stars in self.numbers if stars <= SCALE_TOPS[1]]
        n_beyond = sum(n for stars, n in self.numbers.items() if stars > SCALE_TOPS[1])
        stars = usual if usual and n_beyond <= self.n_few else list(self.numbers)
        return min(stars), max(stars)

    def find_scale_top(self) -> int:
        """Return the top of the smallest scale that covers the numbers."""
        return 1 if self.is_share else find_scale_top(self.find_range()[1])

    def describe(self, *, is_stars: bool) -> str:
        """Return what the column holds, in words."""
        if self.labels.is_mapped:
            return "what --label_map says"
        if is_stars:
            return f"{self.describe_range()}, above {self.labels.threshold:g} positive"
        known = {normalise_label(cell) for cell in self.cells if isinstance(self.labels.find_own(cell), int)}
        shown = sorted(known, key=lambda word: (len(word), word))
        return "labels " + "/".join(shown[:LISTED]) + "/…" * (len(shown) > LISTED)

    def describe_range(self) -> str:
        """Return the range of the numbers, in words."""
        lowest, highest = self.find_range()
        kind = "shares" if self.is_share else "stars"
        return f"{kind} {lowest:g}-{highest:g}" if lowest < highest else f"{kind} {lowest:g}"

    def list_numbers(self) -> str:
        """Return the lowest numbers, in words."""
        shown = [f"{number:g}" for number in sorted(self.numbers)]
        return ", ".join(shown[:LISTED]) + ", ..." * (len(shown) > LISTED)

    def list_common(self) -> tuple[tuple[str, str | None], ...]:
        """Return the most common cells with the names of their labels."""
        found = []
        for cell, _ in Counter(self.cells).most_common(_COMMON_CELLS):
            label = self.labels.find_own(cell)
            if label != Reason.NO_LABEL:
                found.append((cell, self.labels.names[label] if isinstance(label, int) else None))
        return tuple(found)


def find_scale_top(highest: float) -> int:
    """Return the top of the smallest scale that holds this number of stars."""
    return next(top for top in SCALE_TOPS if highest <= top)
