"""Maps words, numbers and the label names of classifiers to the labels of a task."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from sentifactory.clean_text import drop_unseen
from sentifactory.errors import EngineError
from sentifactory.task.task import Task

_ALIASES = {
    "negative": ("负面", "消极", "neg", "负向", "差评", "负"),
    "neutral": ("中性", "中立", "neu", "中评"),
    "positive": ("正面", "积极", "pos", "正向", "好评", "正"),
}
# pandas writes whole numbers as 1.0 when another cell of the column is missing.
_WHOLE_NUMBER = re.compile(r"([+-]?\d+)\.0+")
_SIGNS = str.maketrans("−–", "--")


def normalise_label(word: str) -> str:
    """Return a label in the form in which labels are compared: NFKC, no case, no invisible characters, plain hyphens.

    Example:
        >>> normalise_label("\u200b１.0 "), normalise_label("Positive\ufeff")
        ('1', 'positive')
    """
    word = unicodedata.normalize("NFKC", drop_unseen(word)).strip().casefold().translate(_SIGNS)
    match = _WHOLE_NUMBER.fullmatch(word)
    return match[1] if match else word


def build_label_index(task: Task) -> dict[str, int]:
    """Return the label index of every accepted word, normalised.

    Answer values take precedence, so that files that this package wrote are read back unchanged; then come label
    names, the task's synonyms and common words for the labels.
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
    """Return the label index of a word, or None if it is not a label.

    Example:
        >>> from sentifactory.task.task import BINARY_SENTIMENT
        >>> find_label(" Positive ", build_label_index(BINARY_SENTIMENT))
        1
    """
    return index.get(normalise_label(word))


def name_labels(task: Task) -> dict[str, Any]:
    """Return the entries of a model configuration that name the labels of a classification head."""
    return {
        "id2label": dict(enumerate(task.labels)),
        "label2id": {label: index for index, label in enumerate(task.labels)},
    }


def read_label_name(name: str, index: dict[str, int]) -> int | None:
    """Return the label index of a model's label name, by the whole name or its first word; None if there is none."""
    found = find_label(name, index)
    return find_label(name.split()[0], index) if found is None and name.split() else found


def match_labels(id2label: dict[int, str], task: Task, where: str) -> list[int]:
    """Return for each label of the task the column of the model's logits.

    Names are matched like labels in files of reviews, including synonyms; of a longer name the first word decides.
    Generic names (LABEL_0) are taken in order.

    Raises:
        EngineError: when the model's labels are not those of the task.

    Example:
        >>> from sentifactory.task.task import BINARY_SENTIMENT
        >>> match_labels({0: "positive (stars 4 and 5)", 1: "negative (stars 1 to 3)"}, BINARY_SENTIMENT, "model")
        [1, 0]
    """
    names = [str(id2label[column]) for column in sorted(id2label)]
    if len(names) == len(task.labels) and all(name.upper() == f"LABEL_{at}" for at, name in enumerate(names)):
        return list(range(len(names)))
    index = build_label_index(task)
    columns: dict[int | None, int] = {}
    for column, name in enumerate(names):
        columns.setdefault(read_label_name(name, index), column)
    if len(names) != len(task.labels) or set(columns) != set(range(len(names))):
        raise EngineError(
            f"The model's labels are {', '.join(names)}",
            where=where,
            expected=f"those of the task {task.name}: {', '.join(task.labels)}",
            next_step="give the --task that the model was trained for",
            code="model-labels",
        )
    return [columns[label] for label in range(len(names))]
