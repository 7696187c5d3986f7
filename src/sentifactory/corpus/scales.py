"""Decides for each file what the numbers in its label column are: labels of the task, or stars.

1 is the label positive in one file and the worst of five stars in the next. The name of the column, all of its values
and the user's threshold decide together; what they leave open is asked, not guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sentifactory.corpus.cleaning import Reason
from sentifactory.corpus.labels import MAX_STARS, LabelReader, count_stars, normalise_label
from sentifactory.errors import ConfigError, DataError

# So many cells of a file may be at fault and do not decide what its column is.
FEW_CELLS = 0.05
_TOPS = (5, 10, MAX_STARS)
# A line between bad and good to name in a hint, by the most stars that there are.
_USUAL_LINES: dict[int, float] = {1: 0.5, 5: 3, 10: 5, MAX_STARS: 60}
_COMMON_CELLS = 10
_LISTED = 6


@dataclass(frozen=True, slots=True)
class Scale:
    """What a file's label column holds.

    Attributes:
        said: in words, for people: "labels 0/1", "stars 1-5, above 3 positive".
        is_stars: whether its numbers are stars.
        top: most stars that there are: 1 (shares), 5, 10 or 100; None where the file does not show it.
        numbers: those that stand there.
        common: the commonest cells, and the name of the label of the task that each states, if any.
    """

    said: str
    is_stars: bool
    top: float | None
    numbers: frozenset[float]
    common: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Column:
    """The label column of a file.

    Attributes:
        name: in the header; None for answers in chats, which are no stars.
        names_stars: whether the name says that it holds stars.
        where: file and line of the header, for messages.
    """

    name: str | None
    names_stars: bool
    where: str


def read_cells(cells: Mapping[str, int], column: Column, labels: LabelReader) -> tuple[dict[str, int | Reason], Scale]:
    """Return what each cell of a label column states, and the scale of the column.

    Args:
        cells: how often each cell stands beside a text.
        column: where they stand.
        labels: what the user said about labels.

    Raises:
        DataError: when the numbers could be labels as well as stars, or are stars and no threshold is given.
        ConfigError: when the threshold is none on the scale of the column.
    """
    found = _Cells(cells, column, labels)
    top = None
    is_stars = is_read_as_stars = False
    if labels.is_mapped and labels.has_moods and column.name is not None:
        is_stars = bool(found.stars) or (bool(found.both) and 0 not in found.both and column.names_stars)
    elif labels.has_moods and column.name is not None:
        is_stars = is_read_as_stars = found.judge()
        if not is_stars:
            found.refuse_minus_one()
    if is_read_as_stars:
        top = found.find_top()
        most = top or _TOPS[0]
        meanings = {
            cell: labels.find_word(cell) if count_stars(cell) is None else labels.find_stars(cell, most)
            for cell in cells
        }
    else:
        meanings = {cell: labels.find_word(cell) for cell in cells}
    return meanings, Scale(
        found.describe(is_read_as_stars), is_stars, top, frozenset(found.numbers), found.list_common()
    )


class _Cells:
    """The cells of a label column by what they can be.

    Attributes:
        both: how often each number stands there that is a label as well as stars.
        stars: likewise of stars that are no label.
        numbers: both of these.
        n_words: cells that state a label and no stars.
        n_all: all cells that are not empty.
    """

    def __init__(self, cells: Mapping[str, int], column: Column, labels: LabelReader) -> None:
        self._cells, self._column, self._labels = cells, column, labels
        self.both: Counter[float] = Counter()
        self.stars: Counter[float] = Counter()
        self.n_words = self.n_all = self.n_minus = 0
        for cell, n in cells.items():
            stars, label = count_stars(cell), labels.find_own(cell)
            self.n_all += n if label != Reason.NO_LABEL else 0
            self.n_minus += n if normalise_label(cell) == "-1" and label == Reason.UNKNOWN_LABEL else 0
            if stars is not None:
                (self.both if isinstance(label, int) else self.stars)[stars] += n
            elif isinstance(label, int):
                self.n_words += n
        self.numbers = self.both + self.stars
        n_shares = sum(n for stars, n in self.stars.items() if 0 < stars < 1 and stars != 0.5)
        self._few = FEW_CELLS * self.n_all
        self._is_share = n_shares > self._few and max(self.numbers) <= 1

    def judge(self) -> bool:
        """Return whether the numbers are stars.

        Raises:
            DataError: when it cannot be told, or no threshold is given.
        """
        threshold, names_stars = self._labels.threshold, self._column.names_stars
        says_labels = 0 in self.both or self.n_words > 0
        n_stars = self.stars.total()
        if not self.numbers:
            return False
        if self._is_share and threshold is None:
            raise self._ask_for_threshold("shares between 0 and 1, no labels")
        if self._is_share:
            return True
        if not n_stars:
            if says_labels:
                return False
            if names_stars == (threshold is None):
                raise self._ask_which()
            return names_stars
        if threshold is None:
            if names_stars or (n_stars <= self._few and not says_labels):
                raise self._ask_for_threshold("stars")
            return False
        is_few = n_stars <= self._few and says_labels
        if not names_stars and not is_few and not are_classes(self.numbers):
            highest = self._find_range()[1]
            if highest <= threshold < _find_top(highest):  # 1 and 2 are the two labels of many data sets
                raise self._ask_about_low_numbers(threshold)
        return names_stars or not (is_few or are_classes(self.numbers))

    def find_top(self) -> float | None:
        """Return how many stars there are at most, None where the column does not show it.

        Raises:
            ConfigError: when the threshold leaves one of the sides without any.
        """
        lowest, highest = self._find_range()
        top = self._find_limit()
        is_known = highest == top or top != _TOPS[0]
        threshold = self._labels.threshold or 0
        # Nobody draws a line at 3 of 100: it was meant for another file.
        least = _TOPS[1] if top == MAX_STARS else min(1, lowest)
        if threshold <= least or (is_known and threshold >= top):
            raise ConfigError(
                f"The threshold is {threshold:g}, and the column {self._column.name!r} holds {self._say_range()}",
                where=self._column.where,
                expected="a threshold with stars below and above it",
                next_step=f"run data prepare with --star_threshold {_USUAL_LINES[top]:g}, or where your line is",
            )
        return top if is_known else None

    def refuse_minus_one(self) -> None:
        """Raise a DataError where -1 stands beside 0 and 1: it changes what 0 means, however rare it is."""
        if not self.n_minus or not self.both:
            return
        has_zero = 0 in self.both
        raise DataError(
            f"The column {self._column.name!r} holds -1 ({self.n_minus} of {self.n_all} labels) beside "
            + self._list_numbers()
            + (": 0 is negative and -1 unlabelled, or -1 is negative and 0 neutral" if has_zero else ""),
            where=self._column.where,
            expected="labels of one meaning",
            next_step=f"run data prepare with {self._suggest_for_minus_one()}",
        )

    def _suggest_for_minus_one(self) -> str:
        shifted = "--label_map -1=negative --label_map 1=positive"
        if 0 not in self.both:
            return f"{shifted}, if that is what they mean"
        own = "--label_map 0=negative --label_map 1=positive"
        if isinstance(self._labels.find_own("neutral"), int):
            shifted += " --label_map 0=neutral"
            own = "--label_map 0=negative --label_map 1=neutral --label_map 2=positive"
        return f"{own} if -1 is unlabelled, or {shifted} if 0 is neutral; what is not named is left out"

    def describe(self, is_stars: bool) -> str:
        """Return what the column holds, in words."""
        if self._labels.is_mapped:
            return "what --label_map says"
        if is_stars:
            return f"{self._say_range()}, above {self._labels.threshold:g} positive"
        known = {normalise_label(cell) for cell in self._cells if isinstance(self._labels.find_own(cell), int)}
        shown = sorted(known, key=lambda word: (len(word), word))
        return "labels " + "/".join(shown[:_LISTED]) + "/…" * (len(shown) > _LISTED)

    def list_common(self) -> tuple[tuple[str, str | None], ...]:
        """Return the commonest cells with the names of their labels."""
        found = []
        for cell, _ in Counter(self._cells).most_common(_COMMON_CELLS):
            label = self._labels.find_own(cell)
            if label != Reason.NO_LABEL:
                found.append((cell, self._labels.names[label] if isinstance(label, int) else None))
        return tuple(found)

    def _find_range(self) -> tuple[float, float]:
        """Return the fewest and the most stars; a few of more than ten are typing errors, such as 45 for 4.5."""
        usual = [stars for stars in self.numbers if stars <= _TOPS[1]]
        n_beyond = sum(n for stars, n in self.numbers.items() if stars > _TOPS[1])
        stars = usual if usual and n_beyond <= self._few else list(self.numbers)
        return min(stars), max(stars)

    def _find_limit(self) -> int:
        """Return the top of the scale to which the most stars belong."""
        return 1 if self._is_share else _find_top(self._find_range()[1])

    def _say_range(self) -> str:
        lowest, highest = self._find_range()
        kind = "shares" if self._is_share else "stars"
        return f"{kind} {lowest:g}-{highest:g}" if lowest < highest else f"{kind} {lowest:g}"

    def _list_numbers(self) -> str:
        shown = [f"{number:g}" for number in sorted(self.numbers)]
        return ", ".join(shown[:_LISTED]) + ", ..." * (len(shown) > _LISTED)

    def _ask_for_threshold(self, kind: str) -> DataError:
        return DataError(
            f"The column {self._column.name!r} holds {kind}: {self._list_numbers()}",
            where=self._column.where,
            expected="labels of the task, or the line between bad and good",
            next_step=f"run data prepare with --star_threshold {_USUAL_LINES[self._find_limit()]:g}, or where your "
            "line is, or with --label_column and the name of another column",
        )

    def _ask_about_low_numbers(self, threshold: float) -> DataError:
        return DataError(
            f"The column {self._column.name!r} holds nothing but {self._list_numbers()}, none above the threshold "
            f"{threshold:g}: low star ratings, or labels that are numbered otherwise than the task's",
            where=self._column.where,
            expected="numbers below and above the threshold",
            next_step="call the column stars if they are stars, and write the labels as words, such as "
            f"{self._labels.names[0]}, if they are labels",
        )

    def _ask_which(self) -> DataError:
        numbers = self._list_numbers()
        names = [self._labels.find_own(f"{number:g}") for number in sorted(self.both)]
        labels = ", ".join(self._labels.names[label] for label in names if isinstance(label, int))
        return DataError(
            f"The column {self._column.name!r} holds nothing but {numbers}, which can be low star ratings or the "
            f"label{'s' * (len(self.both) > 1)} {labels}",
            where=self._column.where,
            expected="numbers that can be told apart, as 0 and 1, or 1 to 5",
            next_step=(
                "run data prepare with --star_threshold 3 if they are stars, and call the column label if they are "
                "labels"
                if self._labels.threshold is None
                else "call the column stars if they are stars, and write the labels as words, such as "
                f"{labels.split(', ')[0]}, if they are labels"
            ),
        )


def are_classes(numbers: Collection[float]) -> bool:
    """Whether numbers are those of three classes, which count from 0, rather than stars."""
    return 0 in numbers and max(numbers) <= 2


def suggest_line(numbers: Collection[float]) -> float:
    """Return a line between bad and good on the scale of some stars; from 0 to 4 there are five as well."""
    if 0 in numbers and max(numbers) == 4:
        return 2
    return _USUAL_LINES[_find_top(max(numbers))]


def _find_top(highest: float) -> int:
    return next(top for top in _TOPS if highest <= top)


def refuse_mixed(
    scales: Sequence[tuple[str, Scale]], threshold: float | None, label_map: Mapping[str, str] | None
) -> None:
    """Refuse a threshold or a map that means one thing in one file and something else in the next.

    Args:
        scales: name and scale of each file.
        threshold: of stars, or None.
        label_map: label by word, or None.

    Raises:
        ConfigError: when the threshold is for none of the files or not for all with stars, or the map names a number
            that is a label in one file and stars in another.
    """
    as_words = "write the labels of one of them as words, such as positive and negative"
    with_stars = [(name, scale) for name, scale in scales if scale.is_stars]
    if threshold is not None and not with_stars:
        raise ConfigError(
            "No file holds stars" + "".join(f"; {name}: {scale.said}" for name, scale in scales[:_LISTED]),
            where="--star_threshold",
            next_step="leave the threshold out, or name the column of stars with --label_column",
        )
    tops = {scale.top: name for name, scale in with_stars if scale.top is not None}
    if threshold is not None and len(tops) > 1:
        (low, name), *_, (high, other) = sorted(tops.items())
        raise ConfigError(
            f"The threshold is {threshold:g}, and {name} holds up to {low:g} stars and {other} up to {high:g}",
            where="--star_threshold",
            expected="stars of one scale",
            next_step=as_words,
        )
    for name, scale in with_stars:
        for other, labels in scales:
            shared = scale.numbers & labels.numbers & {count_stars(word) for word in label_map or ()}
            if shared and not labels.is_stars:
                raise ConfigError(
                    f"The map says what {min(shared):g} means, and that is stars in {name} and a label in {other}",
                    where="--label_map",
                    next_step=f"give --star_threshold instead, or {as_words}",
                )
