"""Finds the tasks that have the labels of a file, among those with a name and the task files of the repository."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sentifactory.errors import ConfigError
from sentifactory.task.label_names import build_label_index, normalise_label
from sentifactory.task.task import NAMED_TASKS, Task
from sentifactory.task.task_file import read_task

TASK_FILES = Path("examples/tasks")


def find_fitting_tasks(words: Iterable[str]) -> list[tuple[str, Task]]:
    """Return the tasks that know each of these label words, with what `--task` calls them.

    A task must have no label besides: a few words, or numbers, fit many tasks.

    Example:
        >>> [name for name, _ in find_fitting_tasks(["好评", "负面"])][0]
        'binary_sentiment'
    """
    wanted = {normalise_label(word) for word in words}
    candidates = dict(NAMED_TASKS)
    for path in sorted(TASK_FILES.glob("*.yaml")) if TASK_FILES.is_dir() else ():
        try:
            task = read_task(path)
        except ConfigError:  # a file that the user is working on
            continue
        if task.name not in candidates:
            candidates[path.as_posix()] = task
    found = []
    for name, task in candidates.items():
        index = build_label_index(task)
        if wanted and wanted <= index.keys() and len({index[word] for word in wanted}) == len(task.labels):
            found.append((name, task))
    return found


def describe_answers(task: Task) -> str:
    """Return the labels of a task with their answers, for messages.

    Example:
        >>> describe_answers(NAMED_TASKS["binary_sentiment"])
        '0 = negative, 1 = positive'
    """
    return ", ".join(f"{answer} = {label}" for label, answer in zip(task.labels, task.answer_values, strict=True))
