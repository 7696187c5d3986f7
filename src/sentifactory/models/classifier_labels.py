"""The labels of a text classifier: how its configuration names them, and which of a task's they stand for."""

from __future__ import annotations

from typing import Any

from sentifactory.corpus.labels import build_label_index, find_label
from sentifactory.errors import EngineError
from sentifactory.task import Task


def name_labels(task: Task) -> dict[str, Any]:
    """Return the entries of a configuration that name the labels of a head."""
    return {
        "id2label": dict(enumerate(task.labels)),
        "label2id": {label: index for index, label in enumerate(task.labels)},
    }


def read_label_name(name: str, index: dict[str, int]) -> int | None:
    """Return the label that a model's name for it states, by the whole of it or its first word; None for none."""
    found = find_label(name, index)
    return find_label(name.split()[0], index) if found is None and name.split() else found


def match_labels(id2label: dict[int, str], task: Task, where: str) -> list[int]:
    """Return for each label of the task the column of the model's logits that stands for it.

    Names are compared as those in files of reviews are, synonyms included; of a longer name the first word decides.
    Names that say nothing (LABEL_0) are taken in their order.

    Raises:
        EngineError: when the model's labels are not those of the task.

    Example:
        >>> from sentifactory.task import BINARY_SENTIMENT
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
        )
    return [columns[label] for label in range(len(names))]
