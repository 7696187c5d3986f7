"""The run card: `run.json` beside the checkpoint, which says what was trained, from what, how fast and how well.

Evaluation, the page and publishing read it, so that nothing is typed twice. It is written (by a temporary name and a
rename) when training begins, as losses are logged, at each saved checkpoint and at the end, with the status `running`,
`finished`, `interrupted` or `failed`.
"""

from __future__ import annotations

import hashlib
import json
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from sentifactory.atomic import write_json
from sentifactory.corpus.balance import CLASS_WEIGHTS
from sentifactory.corpus.leak_guard import LEAKS, LeakFinding, find_manifest
from sentifactory.corpus.manifest import hash_file
from sentifactory.json_object import read_json_object
from sentifactory.masking import is_secret_key, mask_settings, mask_words
from sentifactory.models.weights import identify_checkpoint
from sentifactory.proc_tables import read_peak_rss
from sentifactory.task_files import describe_task, load_task
from sentifactory.training.answer_loss import WHOLE_ANSWER
from sentifactory.training.leak_check import warn_of_leaks
from sentifactory.training.recipe import Recipe
from sentifactory.training.recipe_checks import list_data_files

CARD_NAME = "run.json"
CARD_VERSION = 1
_PACKAGES = (
    "sentifactory", "llamafactory", "torch", "transformers", "peft", "accelerate", "datasets", "tokenizers",
    "safetensors", "onnx", "onnxruntime", "numpy",
)  # fmt: skip
# Settings that say where and how a run is continued or reported, and not what is learnt; neither do keys and tokens.
_NEUTRAL_SETTINGS = frozenset({"output_dir", "overwrite_cache", "overwrite_output_dir", "resume_from_checkpoint"})
# Folders of models that training begins with.
_MODEL_KEYS = ("model_name_or_path", "adapter_name_or_path")


def describe_data(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return name, file, SHA-256, size and, where it has them, class weights of every local data file of a recipe."""
    described = []
    for name, file in list_data_files(settings):
        item = {"dataset": name, "file": str(file), "sha256": hash_file(file), "bytes": file.stat().st_size}
        weights = read_class_weights(file)
        described.append(item if weights is None else {**item, CLASS_WEIGHTS: weights})
    return described


def read_class_weights(file: Path) -> dict[str, float] | None:
    """Return the weights by label that the manifest beside a training file gives it, None where it gives none."""
    folder, manifest = find_manifest(file)
    found = ((manifest or {}).get(CLASS_WEIGHTS) or {}).get(file.relative_to(folder).with_suffix("").as_posix())
    return {str(label): float(weight) for label, weight in found.items()} if isinstance(found, dict) else None


def compute_fingerprint(
    settings: Mapping[str, Any], data: Sequence[Mapping[str, Any]], loss: str = WHOLE_ANSWER
) -> str:
    """Return a hash of what a run learns from: a checkpoint is continued only by a run with the same one.

    The model that it begins with counts by its content: another one may stand in the same folder by now.
    """
    bases = [settings[key] for key in _MODEL_KEYS if isinstance(settings.get(key), str)]
    essence: dict[str, Any] = {
        "models": [identify_checkpoint(base) for base in bases],
        "settings": {
            key: value for key, value in settings.items() if key not in _NEUTRAL_SETTINGS and not is_secret_key(key)
        },
        "data": [item["sha256"] for item in data],
    }
    if settings.get("task") is not None:  # of an encoder; the prompts of a language model stand in its data
        essence["task"] = describe_task(load_task(str(settings["task"])))
    if weights := [item[CLASS_WEIGHTS] for item in data if CLASS_WEIGHTS in item]:
        essence[CLASS_WEIGHTS] = weights
    if loss != WHOLE_ANSWER:
        essence["loss"] = loss
    return hashlib.sha256(json.dumps(essence, sort_keys=True, default=str).encode()).hexdigest()


def read_card(folder: str | Path) -> dict[str, Any] | None:
    """Return the run card of an output folder, or None where there is none that can be read."""
    return read_json_object(Path(folder) / CARD_NAME)


def is_trained(recipe: Recipe, loss: str = WHOLE_ANSWER) -> bool:
    """Return whether the recipe's output folder holds a finished run of this recipe on the present data."""
    folder = Path(recipe.settings["output_dir"])
    card = read_card(folder)
    if card is None or card.get("status") != "finished" or not any(folder.glob("*.safetensors")):
        return False
    return card.get("fingerprint") == compute_fingerprint(recipe.settings, describe_data(recipe.settings), loss)


def read_versions() -> dict[str, str]:
    """Return the versions of the packages that decide what a run computes."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def read_git_state() -> dict[str, Any] | None:
    """Return commit and cleanness of the git checkout that holds this package, or None outside one."""
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


def measure_peak_memory() -> dict[str, int]:
    """Return the most memory this process has held so far, in bytes, on the CPU and on CUDA where it is used."""
    unit = 1 if sys.platform == "darwin" else 1024
    found = {"peak_rss_bytes": read_peak_rss() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        found["peak_cuda_bytes"] = torch.cuda.max_memory_allocated()
    return found


def read_device_peak(memory: Mapping[str, int]) -> int:
    """Return the peak of the device that trains, of what `measure_peak_memory` found."""
    return memory.get("peak_cuda_bytes", memory["peak_rss_bytes"])


def read_now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
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
        settings: the settings that LLaMA-Factory gets (the recipe's and those that this run adds).
        data: what `describe_data` returned.
        leaks: what is known of test reviews in the training files.
        loss: which tokens of an answer are learnt.
    """
    warnings = {"warning": warn_of_leaks(leaks)} if leaks.status == LEAKS else {}
    return {
        **warnings,
        "version": CARD_VERSION,
        "status": "running",
        "recipe_file": str(recipe.path),
        "overrides": mask_words(recipe.overrides),
        "recipe": mask_settings(settings),
        "loss": loss,
        "fingerprint": compute_fingerprint(recipe.settings, data, loss),
        "seed": settings.get("seed", 42),
        "data": data,
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
    """Write the card beside the checkpoint."""
    write_json(Path(folder) / CARD_NAME, json.loads(json.dumps(card, default=str)))
