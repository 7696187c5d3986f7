"""Reads what people write as labels: words and numbers of the task, stars with a threshold, or a mapping of one's own.

Numbers are taken as the task's answer values and as nothing else: whether 1 of 5 stars is good is for the user to say.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from sentifactory.corpus.cleaning import Reason
from sentifactory.errors import ConfigError
from sentifactory.task import Task

_ALIASES = {
    "negative": ("负面", "消极", "neg", "负向", "差评", "负"),
    "neutral": ("中性", "中立", "neu", "中评"),
    "positive": ("正面", "积极", "pos", "正向", "好评", "正"),
}
# pandas writes whole numbers as 1.0 when another cell of the column is missing.
_WHOLE_NUMBER = re.compile(r"([+-]?\d+)\.0+")
_STARS = re.compile(r"(\d+(?:\.\d+)?) ?(?:星|星级|分|颗星|stars?|points?)?")
_CHINESE_DIGITS = str.maketrans("一二三四五", "12345")
_MAX_STARS = 10
# A label column has few words. One that has more is no label column, and need not be remembered.
_MAX_REMEMBERED = 4096


class LabelReader:
    """Says which label a cell states.

    Args:
        task: the labels there are.
        label_map: label by the word in the file; then no other word is accepted.
        star_threshold: stars above it are positive, below it negative, and exactly so many neutral where the task has
            such a label; then nothing but stars is accepted.
        can_map: whether the command has options that say what the words of a file mean.

    Attributes:
        task: the labels there are.
        can_map: as given.
        is_mapped: whether the user said which words count; all others are left out on purpose then.
        wants_threshold: whether stars are no labels of the task unless the user states a threshold.

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
        self._index = build_label_index(task)
        self._threshold = star_threshold
        self._by_stars: tuple[int, int | Reason, int] | None = None
        self._remembered: dict[str, int | Reason] = {}
        self.is_mapped = label_map is not None
        self.wants_threshold = not self.is_mapped and star_threshold is None and "positive" in self._index
        if label_map is not None and star_threshold is not None:
            raise ConfigError("Both a label map and a star threshold are given", expected="one of them")
        if label_map is not None:
            self._index = self._check_map(label_map, task)
        if star_threshold is not None:
            self._by_stars = self._check_stars(star_threshold, task)

    def find(self, cell: str) -> int | Reason:
        """Return the label index that a cell states, or why it states none."""
        found = self._remembered.get(cell)
        if found is None:
            found = self._find(cell)
            if len(self._remembered) < _MAX_REMEMBERED:
                self._remembered[cell] = found
        return found

    def describe(self) -> str:
        """Return what is accepted, for messages."""
        if self._by_stars is not None:
            return f"stars from 0 to {_MAX_STARS}, such as 4, 4.5, 4星 or ★★★★"
        return describe_labels(self._index)

    def _find(self, cell: str) -> int | Reason:
        word = _normalise_label(cell)
        if not word:
            return Reason.NO_LABEL
        if self._by_stars is None:
            return self._index.get(word, Reason.UNKNOWN_LABEL)
        stars = count_stars(word)
        if stars is None or self._threshold is None:
            return Reason.UNKNOWN_LABEL
        below, middle, above = self._by_stars
        return above if stars > self._threshold else below if stars < self._threshold else middle

    @staticmethod
    def _check_map(label_map: Mapping[str, str], task: Task) -> dict[str, int]:
        index = build_label_index(task)
        unknown = sorted({label for label in label_map.values() if _normalise_label(label) not in index})
        if unknown or not label_map:
            raise ConfigError(
                f"The task {task.name} has no label {', '.join(map(repr, unknown))}"
                if unknown
                else "The map is empty",
                where="--label_map",
                expected=f"word=label with one of {describe_labels(index)}",
            )
        found: dict[str, int] = {}
        for word, label in label_map.items():
            position = index[_normalise_label(label)]
            if found.setdefault(_normalise_label(word), position) != position:
                raise ConfigError(f"The word {word!r} stands for two labels", where="--label_map")
        return found

    @staticmethod
    def _check_stars(threshold: float, task: Task) -> tuple[int, int | Reason, int]:
        index = build_label_index(task)
        if "negative" not in index or "positive" not in index:
            raise ConfigError(
                f"The task {task.name} has no labels negative and positive to turn stars into",
                where="--star_threshold",
                next_step="leave the threshold out, or choose another --task",
            )
        if not 0 < threshold < _MAX_STARS:
            raise ConfigError(
                f"The threshold is {threshold:g}",
                where="--star_threshold",
                expected=f"more than 0, less than {_MAX_STARS}",
            )
        return index["negative"], index.get("neutral", Reason.MIDDLE_STARS), index["positive"]


def _normalise_label(word: str) -> str:
    word = unicodedata.normalize("NFKC", word).strip().casefold()
    match = _WHOLE_NUMBER.fullmatch(word)
    return match[1] if match else word


def build_label_index(task: Task) -> dict[str, int]:
    """Return every accepted spelling of every label, in the form that `find_label` looks up.

    The answer values of the task come first, so that a file which this package wrote is always read back as it was;
    then the label names, the task's own synonyms and the usual words for them.
    """
    index: dict[str, int] = {}
    for position, value in enumerate(task.answer_values):
        index.setdefault(_normalise_label(str(value)), position)
    for position, name in enumerate(task.labels):
        index.setdefault(_normalise_label(name), position)
    for words_of in (dict(zip(task.labels, task.synonyms, strict=False)), _ALIASES):
        for position, name in enumerate(task.labels):
            for word in words_of.get(name, ()):
                index.setdefault(_normalise_label(word), position)
    return index


def find_label(word: str, index: dict[str, int]) -> int | None:
    """Return the label index that a cell states, or None where it states none.

    Example:
        >>> from sentifactory.task import BINARY_SENTIMENT
        >>> find_label(" Positive ", build_label_index(BINARY_SENTIMENT))
        1
    """
    return index.get(_normalise_label(word))


def count_stars(word: str) -> float | None:
    """Return how many stars a cell states, or None where it states none.

    Example:
        >>> count_stars("4.5 stars"), count_stars("五星"), count_stars("★★★☆☆"), count_stars("good")
        (4.5, 5.0, 3.0, None)
    """
    word = _normalise_label(word)
    if word and not word.strip("★☆"):
        return float(word.count("★"))
    match = _STARS.fullmatch(word.translate(_CHINESE_DIGITS) if len(word) > 1 else word)
    if match is None or float(match[1]) > _MAX_STARS:
        return None
    return float(match[1])


def parse_label_map(pairs: Sequence[str] | None) -> dict[str, str] | None:
    """Return what the options `--label_map word=label` state together; None where none is given.

    Raises:
        ConfigError: when one is no pair, or a word is given twice.

    Example:
        >>> parse_label_map(["满意=positive", "1=2=0"])
        {'满意': 'positive', '1=2': '0'}
    """
    if not pairs:
        return None
    meanings: dict[str, str] = {}
    for pair in pairs:
        word, sign, label = (piece.strip() for piece in pair.rpartition("="))
        if not (word and sign and label) or word in meanings:
            raise ConfigError(
                f"The pair is {pair!r}" + (", and its word was given before" if word in meanings else ""),
                where="--label_map",
                expected="a word of the file and a label of the task, as in 好评=positive",
            )
        meanings[word] = label
    return meanings


def describe_labels(index: dict[str, int]) -> str:
    """Return the accepted spellings for an error message, label by label."""
    by_label: dict[int, list[str]] = {}
    for word, position in index.items():
        by_label.setdefault(position, []).append(word)
    return "; or ".join(", ".join(words) for _, words in sorted(by_label.items()))
