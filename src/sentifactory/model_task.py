"""The task that travels with a model, and the one that travels with reviews.

A file in a model's folder says what the model is asked, in which words. With it and with `calibration.json`
(temperature, bias, threshold) a folder or a hub name alone is enough to predict. The manifest of a prepared data set
says what its labels mean. Both are plain JSON; loading them runs nothing.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from sentifactory.atomic import write_json
from sentifactory.errors import ConfigError
from sentifactory.json_object import read_json_object
from sentifactory.task import TASKS, Task
from sentifactory.task_files import (
    build_task,
    describe_task,
    hash_task,
    name_earlier,
    read_task,
    rebuild_task,
    rename_earlier,
)

TASK_NAME = "sentifactory_task.json"
TASK_VERSION = 1
MANIFEST = "manifest.json"


def write_model_task(task: Task, folder: str | Path) -> Path:
    """Write the task of a model, and its hash, into its folder; raises what `atomic.write_json` raises."""
    path = Path(folder) / TASK_NAME
    write_json(path, {"version": TASK_VERSION, "sha256": hash_task(task), "task": describe_task(task)})
    return path


def read_model_task(folder: str | Path) -> Task | None:
    """Return the task in a model's folder, or None where there is none.

    A model may have been tuned with an earlier prompt of a built-in task: it keeps its own words, under a name of
    their own.

    Raises:
        ConfigError: when the file is there and cannot be used.
    """
    path = Path(folder).expanduser() / TASK_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"The model's task cannot be read ({error})", where=str(path), next_step="fetch the model again"
        ) from error
    described = content.get("task") if isinstance(content, dict) else None
    if not isinstance(described, dict) or content.get("version") != TASK_VERSION:
        raise ConfigError(
            "The model's task is not of a form that this version reads",
            where=str(path),
            expected=f"version {TASK_VERSION} and a task",
            next_step="update SentiFactory, or fetch the model again",
        )
    task = build_task(rename_earlier(described), str(path))
    written = task if task.name == described["name"] else replace(task, name=described["name"])
    if content.get("sha256") not in (None, hash_task(written)):
        raise ConfigError(
            "The model's task was changed after training",
            where=str(path),
            expected="the words that the model was taught, as their hash in the file says",
            next_step="fetch the model again, or put the file back as it was",
        )
    return task


def find_task_record(data: str | Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the manifest of a data set and what it says of the task; None where there is none.

    Args:
        data: the folder of the data set, or one of its files. A fold's manifest stands one folder higher.
    """
    place = Path(data).expanduser()
    if not place.exists():
        return None
    if place.is_dir():
        return _read_record(place / MANIFEST, None)
    whole = place.absolute()
    higher = whole.parent.parent / MANIFEST
    return _read_record(place.parent / MANIFEST, None) or _read_record(higher, f"{whole.parent.name}/{whole.name}")


def _read_record(path: Path, output: str | None) -> tuple[Path, dict[str, Any]] | None:
    """Return a manifest's record of the task; of one that stands higher, only when it names the output."""
    manifest = read_json_object(path) or {}
    record = manifest.get("task")
    if not isinstance(record, dict) or (output is not None and output not in (manifest.get("outputs") or ())):
        return None
    # Many programs write a manifest.json: this is one of ours.
    is_ours = isinstance(record.get("name"), str) and isinstance(record.get("labels"), list)
    return (path, record) if is_ours else None


def read_recorded_task(path: Path, record: dict[str, Any]) -> Task:
    """Return the task that a manifest records.

    An older manifest holds name, labels and prompt alone: then it is the built-in task of this name, or the one of the
    YAML file that the manifest names, as long as that still says the same.

    Raises:
        ConfigError: when it cannot be had.
    """
    if "answer_values" in record:
        return rebuild_task(record, str(path))
    name, labels, prompt = record["name"], record["labels"], record.get("prompt_template")
    known = TASKS.get(name)
    if known is not None and list(known.labels) == labels:
        return known if prompt in (None, known.prompt_template) else _reword(known, prompt, path)
    file = record.get("file")
    why = "which is not built in" if known is None else f"and the built-in one has {', '.join(known.labels)}"
    if file:
        try:
            task = read_task(Path(str(file)))
        except ConfigError as error:
            why = f"of {file}, which cannot be used now ({error})"
        else:
            if list(task.labels) == labels and prompt in (None, task.prompt_template):
                return task
            why = f"of {file}, which has changed since"
    raise ConfigError(
        f"The data set was prepared for the task {name!r}"
        + (f" with the labels {', '.join(map(str, labels))}" if labels else "")
        + f", {why}",
        where=str(path),
        next_step="give its YAML file by --task, or prepare the data set again",
    )


def _reword(task: Task, prompt: Any, path: Path) -> Task:
    try:
        return replace(task, name=name_earlier(task), prompt_template=str(prompt))
    except ValueError as error:
        raise ConfigError(f"The manifest's task cannot be used ({error})", where=str(path)) from error
