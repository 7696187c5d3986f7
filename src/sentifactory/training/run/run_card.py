"""The run card, `run.json` in the output folder: recipe, data, versions, speed, memory and metrics of a run.

Evaluation, the page and publishing read it, so that no figure is typed by hand. It is written atomically when training
begins, while losses are logged, at each checkpoint and at the end, with the status `running`, `finished`,
`interrupted` or `failed`.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import sentifactory
from sentifactory.corpus.leakage.leak_guard import LEAKS, LeakFinding, find_manifest
from sentifactory.corpus.splitting.balance import CLASS_WEIGHTS
from sentifactory.models.first_base import RUN_CARD
from sentifactory.models.weights import identify_checkpoint
from sentifactory.redaction import is_secret_key, mask_arguments, mask_settings
from sentifactory.system.atomic import write_json
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.json_text import read_json_object
from sentifactory.task.task_file import describe_task, load_task
from sentifactory.training.acceleration.answer_logits import WHOLE_ANSWER
from sentifactory.training.recipe.known_training import EARLIER, MODEL_KEYS, describe_earlier_training
from sentifactory.training.recipe.precision import list_precisions
from sentifactory.training.recipe.recipe import Recipe
from sentifactory.training.recipe.recipe_checks import list_data_files
from sentifactory.training.recipe.recipe_leaks import warn_of_leaks

CARD_NAME = RUN_CARD
CARD_VERSION = 1
_PACKAGES = (
    "sentifactory", "llamafactory", "torch", "transformers", "peft", "accelerate", "datasets", "tokenizers",
    "safetensors", "onnx", "onnxruntime", "numpy",
)  # fmt: skip
# Settings that do not affect what is learnt; secrets are left out as well.
_NEUTRAL_SETTINGS = frozenset({"output_dir", "overwrite_cache", "overwrite_output_dir", "resume_from_checkpoint"})


def describe_data(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return name, file, SHA-256, size and class weights, if any, of every local data file of a recipe."""
    described = []
    for name, file in list_data_files(settings):
        item = {"dataset": name, "file": str(file), "sha256": hash_file(file), "bytes": file.stat().st_size}
        weights = read_class_weights(file)
        described.append(item if weights is None else {**item, CLASS_WEIGHTS: weights})
    return described


def read_class_weights(file: Path) -> dict[str, float] | None:
    """Return the class weights of a training file by label, from the manifest of its data, or None."""
    if (known := find_manifest(file)) is None:
        return None
    _, name, manifest = known
    try:
        weights = manifest[CLASS_WEIGHTS][name.rpartition(".")[0]]
        return {str(label): float(weight) for label, weight in weights.items()}
    except (LookupError, AttributeError, TypeError, ValueError):  # no weights, or an edited manifest
        return None


def compute_fingerprint(
    settings: Mapping[str, Any], data: Sequence[Mapping[str, Any]], loss: str = WHOLE_ANSWER
) -> str:
    """Return a hash of everything that a run learns from; a checkpoint is continued only by a run with the same hash.

    The base model is identified by its content, because another one may be in the same folder now.
    """
    return _hash_values(_list_essence(settings, data, loss))


def identify_inputs(
    settings: Mapping[str, Any], data: Sequence[Mapping[str, Any]], loss: str = WHOLE_ANSWER
) -> dict[str, str]:
    """Return a hash each of the recipe, the model and the data that `compute_fingerprint` covers."""
    essence = _list_essence(settings, data, loss)
    parts = {"model": ("models",), "data": ("data", CLASS_WEIGHTS)}
    others = tuple(key for key in essence if not any(key in keys for keys in parts.values()))
    return {
        name: _hash_values({key: essence[key] for key in keys if key in essence})
        for name, keys in {"recipe": others, **parts}.items()
    }


def _hash_values(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def _list_essence(settings: Mapping[str, Any], data: Sequence[Mapping[str, Any]], loss: str) -> dict[str, Any]:
    """Return everything that a run learns from, as JSON values."""
    bases = [settings[key] for key in MODEL_KEYS if isinstance(settings.get(key), str)]
    essence: dict[str, Any] = {
        "models": [identify_checkpoint(base) for base in bases],
        "settings": {
            key: value for key, value in settings.items() if key not in _NEUTRAL_SETTINGS and not is_secret_key(key)
        },
        "data": [item["sha256"] for item in data],
    }
    if settings.get("task") is not None:  # of an encoder; the data of a language model contain its prompts
        essence["task"] = describe_task(load_task(str(settings["task"])))
    if weights := [item[CLASS_WEIGHTS] for item in data if CLASS_WEIGHTS in item]:
        essence[CLASS_WEIGHTS] = weights
    if loss != WHOLE_ANSWER:
        essence["loss"] = loss
    return essence


def read_card(folder: str | Path) -> dict[str, Any] | None:
    """Return the run card of an output folder, or None where there is no readable one."""
    return read_json_object(Path(folder) / CARD_NAME)


def is_trained(recipe: Recipe, loss: str = WHOLE_ANSWER) -> bool:
    """Return whether the output folder contains a finished run of this recipe on the current data."""
    folder = Path(recipe.settings["output_dir"])
    card = read_card(folder)
    if card is None or card.get("status") != "finished" or not any(folder.glob("*.safetensors")):
        return False
    data = describe_data(recipe.settings)
    return any(
        card.get("fingerprint") == compute_fingerprint(settings, data, loss)
        for settings in list_precisions(recipe.settings)
    )


def read_versions() -> dict[str, str]:
    """Return the versions of the packages that affect a run."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def read_git_state() -> dict[str, Any] | None:
    """Return commit and cleanness of this package's git checkout, or None outside one."""
    folder = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=True,
        ).stdout.strip()
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=folder, capture_output=True, errors="replace", timeout=30, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "has_changes": bool(changes.strip())}


def identify_code() -> dict[str, str]:
    """Return a hash each of this package's source files and of the versions of all packages that affect a run."""
    digest = hashlib.sha256()
    root = Path(sentifactory.__file__).parent
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root)} {hash_file(file)}".encode())
    return {"code": digest.hexdigest(), "packages": _hash_values(read_versions())}


def read_now() -> str:
    """Return the current time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def begin_card(
    recipe: Recipe,
    settings: Mapping[str, Any],
    data: list[dict[str, Any]],
    leaks: LeakFinding,
    loss: str = WHOLE_ANSWER,
) -> dict[str, Any]:
    """Return the card of a run that is about to start.

    Args:
        recipe: the file and the overrides.
        settings: the recipe's settings and those that this run adds.
        data: from `describe_data`.
        leaks: the result of the leak check.
        loss: `answer`, `label` or `mixed`.
    """
    warnings = {"warning": warn_of_leaks(leaks)} if leaks.status == LEAKS else {}
    return {
        **warnings,
        "version": CARD_VERSION,
        "status": "running",
        "recipe_file": str(recipe.path),
        "overrides": mask_arguments(recipe.overrides),
        "recipe": mask_settings(settings),
        "loss": loss,
        "fingerprint": compute_fingerprint(recipe.settings, data, loss),
        "seed": settings.get("seed", 42),
        "data": data,
        EARLIER: describe_earlier_training(settings),
        "task": None,
        CLASS_WEIGHTS: None,
        "leak_check": leaks.to_json(),
        "packages": read_versions(),
        "git": read_git_state(),
        "machine": {"system": platform.platform(), "processor": platform.machine()},
        "started_at": read_now(),
        "finished_at": None,
        "continued_from": None,
        "wall_time_s": None,
        "parameters": None,
        "estimate": None,
        "accelerations": [],
        "speed": None,
        "memory": None,
        "metrics": [],
        "result": {},
        "error": None,
    }


def write_card(folder: str | Path, card: Mapping[str, Any]) -> None:
    """Write the card into the output folder."""
    write_json(Path(folder) / CARD_NAME, json.loads(json.dumps(card, default=str)))


def summarise_trainable(named_shapes: Sequence[tuple[str, int, bool]]) -> dict[str, Any]:
    """Return counts and a short list of trainable parameters, for the run card.

    Args:
        named_shapes: (name, number of elements, whether it is trainable) for each parameter.

    Example:
        >>> summarise_trainable([("model.layers.0.a.weight", 4, False), ("model.layers.1.a.weight", 4, True)])
        {'trainable': 4, 'total': 8, 'tensors': 1, 'names': ['model.layers.1.*']}
    """
    trained = [(name, size) for name, size, is_trainable in named_shapes if is_trainable]
    names = sorted({re.sub(r"(\.\d+)\..*", r"\1.*", name, count=1) for name, _ in trained}, key=_natural_order)
    return {
        "trainable": sum(size for _, size in trained),
        "total": sum(size for _, size, _ in named_shapes),
        "tensors": len(trained),
        "names": names,
    }


def _natural_order(name: str) -> list[Any]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]
