"""Finds a task by name, or reads it from a YAML file such as those under `examples/tasks`."""

from __future__ import annotations

from sentifactory.errors import ConfigError
from sentifactory.task import TASKS, Task


def load_task(name_or_path: str) -> Task:
    """Return a built-in task by its name, or the task that a YAML file describes.

    Raises:
        ConfigError: when there is no such task, or with all that is wrong in the file.
    """
    if name_or_path in TASKS:
        return TASKS[name_or_path]
    raise ConfigError(f"There is no task {name_or_path!r}", where="--task", expected=" or ".join(TASKS))
