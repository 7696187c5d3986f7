"""Writes and reads the task in a model's folder, and reads the task in the manifest of a data set.

With the task file and `calibration.json` (temperature, bias, threshold) a folder or hub name is all that prediction
needs. Both are plain JSON; reading them executes no code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.system.atomic import write_json
from sentifactory.system.json_text import read_json, read_json_object
from sentifactory.task.task import TASKS, Task
from sentifactory.task.task_file import (
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
    """Write the task of a model, and its hash, into the model's folder; raises what `atomic.write_json` raises."""
    path = Path(folder) / TASK_NAME
    write_json(path, {"version": TASK_VERSION, "sha256": hash_task(task), "task": describe_task(task)})
    return path


def read_model_task(folder: str | Path) -> Task | None:
    """Return the task in a model's folder, or None where there is none.

    A model that was tuned with an earlier prompt of a built-in task keeps that prompt, under another task name.

    Raises:
        ConfigError: when the file is there and cannot be used.
    """
    path = Path(folder).expanduser() / TASK_NAME
    try:
        content = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The model's task cannot be read ({error})",
            where=str(path),
            next_step="fetch the model again",
            code="model-task-unreadable",
        ) from error
    described = content.get("task") if isinstance(content, dict) else None
    if not isinstance(described, dict) or content.get("version") != TASK_VERSION:
        raise ConfigError(
            "This version of SentiFactory cannot read the model's task",
            where=str(path),
            expected=f"version {TASK_VERSION} and a task",
            next_step="update SentiFactory, or fetch the model again",
            code="model-task-version",
        )
    task = build_task(rename_earlier(described), str(path))
    written = task if task.name == described["name"] else replace(task, name=described["name"])
    if content.get("sha256") not in (None, hash_task(written)):
        raise ConfigError(
            "The model's task was changed after training",
            where=str(path),
            expected="the prompt and labels of the training, which match the hash in the file",
            next_step="fetch the model again, or restore the file",
            code="model-task-changed",
        )
    return task


def find_task_record(data: str | Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the path of a data set's manifest and its record of the task; None where there is none.

    Args:
        data: the folder of the data set, or one of its files. The manifest of a fold is one folder higher.
    """
    path = Path(data).expanduser()
    if not path.exists():
        return None
    if path.is_dir():
        return _read_record(path / MANIFEST, read_json_object(path / MANIFEST) or {})
    for folder, name, manifest in iter_manifests(path):
        is_named = "/" not in name or name in (manifest.get("outputs") or ())
        if is_named and (found := _read_record(folder / MANIFEST, manifest)) is not None:
            return found
    return None


def iter_manifests(file: Path) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    """Yield the manifests that may describe a file: in its folder, and one folder higher, where that of a fold is.

    Each comes with its folder and the name of the file relative to that. Many programs write a manifest.json: the
    caller checks whether it is one of ours and lists the file.
    """
    whole = file.absolute()
    higher = file.parent.parent if len(file.parts) > 2 else whole.parent.parent
    for folder, name in ((file.parent, whole.name), (higher, f"{whole.parent.name}/{whole.name}")):
        manifest = read_json_object(folder / MANIFEST)
        if manifest is not None:
            yield folder, name, manifest


def _read_record(path: Path, manifest: dict[str, Any]) -> tuple[Path, dict[str, Any]] | None:
    """Return a manifest's record of the task; None for a manifest that is not one of ours."""
    record = manifest.get("task")
    if not isinstance(record, dict):
        return None
    # Other programs write files of this name as well.
    is_ours = isinstance(record.get("name"), str) and isinstance(record.get("labels"), list)
    return (path, record) if is_ours else None


def read_recorded_task(path: Path, record: dict[str, Any]) -> Task:
    """Return the task that a manifest records.

    An older manifest has only name, labels and prompt: then the task is the built-in one of this name, or that of the
    YAML file that the manifest names, provided that it is unchanged.

    Raises:
        ConfigError: when the task cannot be restored.
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
        code="manifest-task-unknown",
    )


def _reword(task: Task, prompt: Any, path: Path) -> Task:
    try:
        return replace(task, name=name_earlier(task), prompt_template=str(prompt))
    except ValueError as error:
        raise ConfigError(
            f"The manifest's task cannot be used ({error})", where=str(path), code="manifest-task-unknown"
        ) from error
