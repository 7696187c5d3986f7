"""Reads label cells: words and numbers of the task, stars with a threshold, or the words of a label map.

A word means the same in every file. Whether a number is a label or stars, `label_scales` decides for each file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sentifactory.errors import ConfigError
from sentifactory.records import Reason
from sentifactory.task.label_names import build_label_index, normalise_label
from sentifactory.task.task import Task

_STARS = re.compile(r"(\d+(?:\.\d+)?) ?(?:星|星级|分|颗星|stars?|points?|out of 5 stars)?")
_COMMA = re.compile("[,\uff0c]")
_CHINESE_DIGITS = str.maketrans("一二两三四五", "122345")
MAX_STARS = 100


class LabelReader:
    """Finds the label that a cell states.

    Args:
        task: says which labels there are.
        label_map: label by the word in the file; no other word is accepted then.
        star_threshold: stars above it are positive, below it negative, and equal to it neutral if the task has such a
            label.
        can_map: whether the command has options that map the words of a file.

    Attributes:
        task: as given.
        can_map: as given.
        is_mapped: whether there is a label map; all other words are left out on purpose then.
        has_moods: whether stars can be turned into labels: the task has the labels negative and positive.
        threshold: of stars, or None.
        names: of the labels.

    Raises:
        ConfigError: when the map or the threshold does not fit the task.
    """

    def __init__(
        self,
        task: Task,
        label_map: Mapping[str, str] | None = None,
        star_threshold: float | None = None,
        *,
        can_map: bool = True,
    ) -> None:
        self.task = task
        self.can_map = can_map
        self._index = self._own = build_label_index(task)
        self.names = task.labels
        self._by_stars: tuple[int, int | Reason, int] | None = None
        self.is_mapped = label_map is not None
        self.has_moods = {"negative", "positive"} <= {*self._index}
        self.threshold = star_threshold
        if label_map is not None and star_threshold is not None:
            raise ConfigError(
                "Both a label map and a star threshold are given", expected="one of them", code="stars-and-map"
            )
        if label_map is not None:
            self._index = self._check_map(label_map)
        if star_threshold is not None:
            self._by_stars = self._check_stars(star_threshold)

    def find(self, cell: str) -> int | Reason:
        """Return the label index of a cell, or why it has none; with a threshold, numbers are stars."""
        found = self.find_stars(cell)
        return self.find_word(cell) if found == Reason.UNKNOWN_LABEL else found

    def find_word(self, cell: str) -> int | Reason:
        """Return the label index of a word or a number of the task, or why the cell has none."""
        word = normalise_label(cell)
        return self._index.get(word, Reason.UNKNOWN_LABEL) if word else Reason.NO_LABEL

    def find_own(self, cell: str) -> int | Reason:
        """Return the same by the words of the task, ignoring the label map."""
        word = normalise_label(cell)
        return self._own.get(word, Reason.UNKNOWN_LABEL) if word else Reason.NO_LABEL

    def find_stars(self, cell: str, most: float = MAX_STARS) -> int | Reason:
        """Return the label index of a number of stars, `most` at most, or why the cell has none."""
        stars = count_stars(cell)
        if stars is None or stars > most or self._by_stars is None or self.threshold is None:
            return Reason.UNKNOWN_LABEL if normalise_label(cell) else Reason.NO_LABEL
        below, middle, above = self._by_stars
        return above if stars > self.threshold else below if stars < self.threshold else middle

    def describe(self) -> str:
        """Return the accepted spellings, for messages."""
        stars = "stars, such as 4, 4.5, 4星 or ★★★★; or " if self._by_stars else ""
        return stars + describe_labels(self._index)

    def _check_map(self, label_map: Mapping[str, str]) -> dict[str, int]:
        unknown = sorted({label for label in label_map.values() if normalise_label(label) not in self._own})
        if unknown or not label_map:
            raise ConfigError(
                f"The task {self.task.name} has no label {', '.join(map(repr, unknown))}"
                if unknown
                else "The map is empty",
                where="--label_map",
                expected=f"word=label with one of {describe_labels(self._own)}",
                code="map-invalid",
            )
        found: dict[str, int] = {}
        for word, label in label_map.items():
            position = self._own[normalise_label(label)]
            if found.setdefault(normalise_label(word), position) != position:
                raise ConfigError(
                    f"The word {word!r} is mapped to two labels", where="--label_map", code="map-invalid"
                )
        return found

    def _check_stars(self, threshold: float) -> tuple[int, int | Reason, int]:
        if not self.has_moods:
            raise ConfigError(
                f"The task {self.task.name} has no labels negative and positive to turn stars into",
                where="--star_threshold",
                next_step="leave out --star_threshold, or choose another --task",
                code="stars-task",
            )
        if not 0 < threshold < MAX_STARS:
            raise ConfigError(
                f"The threshold is {threshold:g}",
                where="--star_threshold",
                expected=f"more than 0, less than {MAX_STARS}",
                code="stars-threshold",
            )
        return self._own["negative"], self._own.get("neutral", Reason.MIDDLE_STARS), self._own["positive"]


def count_stars(word: str) -> float | None:
    """Return the number of stars of a cell, None if it states none.

    Example:
        >>> count_stars("4.5 stars"), count_stars("五星"), count_stars("★★★☆☆"), count_stars("good")
        (4.5, 5.0, 3.0, None)
    """
    word = normalise_label(word)
    if word and not word.strip("★☆⭐"):
        return float(word.count("★") + word.count("⭐"))
    match = _STARS.fullmatch(word.translate(_CHINESE_DIGITS) if len(word) > 1 else word)
    if match is None or float(match[1]) > MAX_STARS:
        return None
    return float(match[1])


def parse_label_map(options: Sequence[str] | None) -> dict[str, str] | None:
    """Return the label map of all options `--label_map word=label`, None if there are none.

    An option may hold several pairs, separated by commas.

    Raises:
        ConfigError: when one is not a pair, or a word is given twice.

    Example:
        >>> parse_label_map(["满意=positive,不满意=negative", "1=2=0"])
        {'满意': 'positive', '不满意': 'negative', '1=2': '0'}
    """
    if not options:
        return None
    meanings: dict[str, str] = {}
    for option in options:
        pairs = _COMMA.split(option)
        for pair in pairs if all("=" in piece for piece in pairs) else [option]:  # a comma may be part of the word
            word, sign, label = (piece.strip() for piece in pair.rpartition("="))
            if not (word and sign and label) or word in meanings:
                raise ConfigError(
                    f"The pair is {pair!r}" + (", and its word was given before" if word in meanings else ""),
                    where="--label_map",
                    expected="a word of the file and a label of the task, as in 好评=positive",
                    code="map-invalid",
                )
            meanings[word] = label
    return meanings


def describe_labels(index: dict[str, int]) -> str:
    """Return the accepted spellings, label by label."""
    by_label: dict[int, list[str]] = {}
    for word, position in index.items():
        by_label.setdefault(position, []).append(word)
    return "; or ".join(", ".join(words) for _, words in sorted(by_label.items()))
