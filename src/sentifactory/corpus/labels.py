"""Reads what people write as labels: words and numbers of the task, stars with a threshold, or a mapping of one's own.

A word says the same in every file. What a number says, a label or stars, `scales` decides for each file.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from sentifactory.corpus.cleaning import Reason, drop_unseen
from sentifactory.errors import ConfigError
from sentifactory.task import Task

_ALIASES = {
    "negative": ("负面", "消极", "neg", "负向", "差评", "负"),
    "neutral": ("中性", "中立", "neu", "中评"),
    "positive": ("正面", "积极", "pos", "正向", "好评", "正"),
}
# pandas writes whole numbers as 1.0 when another cell of the column is missing.
_WHOLE_NUMBER = re.compile(r"([+-]?\d+)\.0+")
_SIGNS = str.maketrans("−–", "--")
_STARS = re.compile(r"(\d+(?:\.\d+)?) ?(?:星|星级|分|颗星|stars?|points?|out of 5 stars)?")
_COMMA = re.compile("[,\uff0c]")
_CHINESE_DIGITS = str.maketrans("一二两三四五", "122345")
MAX_STARS = 100


class LabelReader:
    """Says which label a cell states.

    Args:
        task: the labels there are.
        label_map: label by the word in the file; then no other word is accepted.
        star_threshold: stars above it are positive, below it negative, and exactly so many neutral where the task has
            such a label.
        can_map: whether the command has options that say what the words of a file mean.

    Attributes:
        task: the labels there are.
        can_map: as given.
        is_mapped: whether the user said which words count; all others are left out on purpose then.
        has_moods: whether stars can be turned into labels: there are a negative and a positive one.
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
            raise ConfigError("Both a label map and a star threshold are given", expected="one of them")
        if label_map is not None:
            self._index = self._check_map(label_map, task)
        if star_threshold is not None:
            self._by_stars = self._check_stars(star_threshold, task)

    def find(self, cell: str) -> int | Reason:
        """Return the label index that a cell states, or why it states none; with a threshold stars are stars."""
        found = self.find_stars(cell)
        return self.find_word(cell) if found == Reason.UNKNOWN_LABEL else found

    def find_word(self, cell: str) -> int | Reason:
        """Return the label index that a cell states as a word or a number of the task, or why it states none."""
        word = normalise_label(cell)
        return self._index.get(word, Reason.UNKNOWN_LABEL) if word else Reason.NO_LABEL

    def find_own(self, cell: str) -> int | Reason:
        """Return the same by the words of the task, whatever the user's map says."""
        word = normalise_label(cell)
        return self._own.get(word, Reason.UNKNOWN_LABEL) if word else Reason.NO_LABEL

    def find_stars(self, cell: str, most: float = MAX_STARS) -> int | Reason:
        """Return the label index that a cell states as stars, of so many at most, or why it states none."""
        stars = count_stars(cell)
        if stars is None or stars > most or self._by_stars is None or self.threshold is None:
            return Reason.UNKNOWN_LABEL if normalise_label(cell) else Reason.NO_LABEL
        below, middle, above = self._by_stars
        return above if stars > self.threshold else below if stars < self.threshold else middle

    def describe(self) -> str:
        """Return what is accepted, for messages."""
        stars = "stars, such as 4, 4.5, 4星 or ★★★★; or " if self._by_stars else ""
        return stars + describe_labels(self._index)

    @staticmethod
    def _check_map(label_map: Mapping[str, str], task: Task) -> dict[str, int]:
        index = build_label_index(task)
        unknown = sorted({label for label in label_map.values() if normalise_label(label) not in index})
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
            position = index[normalise_label(label)]
            if found.setdefault(normalise_label(word), position) != position:
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
        if not 0 < threshold < MAX_STARS:
            raise ConfigError(
                f"The threshold is {threshold:g}",
                where="--star_threshold",
                expected=f"more than 0, less than {MAX_STARS}",
            )
        return index["negative"], index.get("neutral", Reason.MIDDLE_STARS), index["positive"]


def normalise_label(word: str) -> str:
    """Return a label in the form in which labels are compared: as read aloud, whatever signs it was written in.

    Example:
        >>> normalise_label("\u200b１.0 "), normalise_label("Positive\ufeff")
        ('1', 'positive')
    """
    word = unicodedata.normalize("NFKC", drop_unseen(word)).strip().casefold().translate(_SIGNS)
    match = _WHOLE_NUMBER.fullmatch(word)
    return match[1] if match else word


def build_label_index(task: Task) -> dict[str, int]:
    """Return every accepted spelling of every label, in the form that `find_label` looks up.

    The answer values of the task come first, so that a file which this package wrote is always read back as it was;
    then the label names, the task's own synonyms and the usual words for them.
    """
    index: dict[str, int] = {}
    for position, value in enumerate(task.answer_values):
        index.setdefault(normalise_label(str(value)), position)
    for position, name in enumerate(task.labels):
        index.setdefault(normalise_label(name), position)
    for words_of in (dict(zip(task.labels, task.synonyms, strict=False)), _ALIASES):
        for position, name in enumerate(task.labels):
            for word in words_of.get(name, ()):
                index.setdefault(normalise_label(word), position)
    return index


def find_label(word: str, index: dict[str, int]) -> int | None:
    """Return the label index that a cell states, or None where it states none.

    Example:
        >>> from sentifactory.task import BINARY_SENTIMENT
        >>> find_label(" Positive ", build_label_index(BINARY_SENTIMENT))
        1
    """
    return index.get(normalise_label(word))


def count_stars(word: str) -> float | None:
    """Return how many stars a cell states, or None where it states none.

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
    """Return what the options `--label_map word=label` state together; None where none is given.

    An option may hold several pairs, between commas.

    Raises:
        ConfigError: when one is no pair, or a word is given twice.

    Example:
        >>> parse_label_map(["满意=positive,不满意=negative", "1=2=0"])
        {'满意': 'positive', '不满意': 'negative', '1=2': '0'}
    """
    if not options:
        return None
    meanings: dict[str, str] = {}
    for option in options:
        pairs = _COMMA.split(option)
        for pair in pairs if all("=" in piece for piece in pairs) else [option]:  # else the comma is part of the word
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
