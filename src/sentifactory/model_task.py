"""The task that travels with a model: a file in its folder says what the model is asked, in which words.

With it and with `calibration.json` (temperature, bias, threshold) a folder or a hub name alone is enough to predict.
Both are small files of plain JSON; loading them runs nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

from sentifactory.atomic import write_json
from sentifactory.errors import ConfigError
from sentifactory.task import TASKS, Task
from sentifactory.task_files import build_task, describe_task

TASK_NAME = "sentifactory_task.json"
TASK_VERSION = 1


def write_model_task(task: Task, folder: str | Path) -> Path:
    """Write the task of a model into its folder; raises what `atomic.write_json` raises."""
    path = Path(folder) / TASK_NAME
    write_json(path, {"version": TASK_VERSION, "task": describe_task(task)})
    return path


def read_model_task(folder: str | Path) -> Task | None:
    """Return the task in a model's folder, or None where there is none.

    A model may have been tuned with an earlier prompt of a built-in task: it keeps its own words, under a name of
    their own.

    Raises:
        ConfigError: when the file is there and cannot be used.
    """
    path = Path(folder) / TASK_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The model's task cannot be read ({error})", where=str(path), next_step="fetch the model again"
        ) from error
    described = content.get("task") if isinstance(content, dict) else None
    if not isinstance(described, dict) or content.get("version") != TASK_VERSION:
        raise ConfigError(
            "The model's task is not of a form that this version reads",
            where=str(path),
            expected=f"version {TASK_VERSION} and a task",
            next_step="update SentiFactory, or give --task",
        )
    known = TASKS.get(str(described.get("name")))
    if known is not None and described != describe_task(known):
        described = {**described, "name": f"{known.name}_of_the_model"}
    return build_task(described, str(path))
