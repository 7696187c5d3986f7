"""Reads the labels people write (0/1, positive/negative, 正面/负面, 积极/消极) as indices into a task's labels."""

from __future__ import annotations

import re
import unicodedata

from sentifactory.task import Task

_ALIASES = {"negative": ("负面", "消极"), "positive": ("正面", "积极")}
# pandas writes whole numbers as 1.0 when another cell of the column is missing.
_WHOLE_NUMBER = re.compile(r"([+-]?\d+)\.0+")


def _normalise_label(word: str) -> str:
    word = unicodedata.normalize("NFKC", word).strip().casefold()
    match = _WHOLE_NUMBER.fullmatch(word)
    return match[1] if match else word


def build_label_index(task: Task) -> dict[str, int]:
    """Return every accepted spelling of every label, in the form that `find_label` looks up.

    The answer values of the task come first, so that a file which this package wrote is always read back as it was;
    then the label names and the Chinese words for them.
    """
    index: dict[str, int] = {}
    for position, value in enumerate(task.answer_values):
        index.setdefault(_normalise_label(str(value)), position)
    for position, name in enumerate(task.labels):
        for word in (name, *_ALIASES.get(name, ())):
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


def describe_labels(index: dict[str, int]) -> str:
    """Return the accepted spellings for an error message, label by label."""
    by_label: dict[int, list[str]] = {}
    for word, position in index.items():
        by_label.setdefault(position, []).append(word)
    return "; or ".join(", ".join(words) for _, words in sorted(by_label.items()))
