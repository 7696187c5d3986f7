"""Whose answers these are: all that decides what an engine says, but not where it lies or what it is called.

Whatever is continued or kept (a comparison, a labelling, a teacher's answers, the entries of a ladder) belongs to one
identity. Another model of the same name, the same folder trained again, another prompt or another correction of the
probabilities has another one. Not covered: a model at an address or on a hub is known by its name alone, for nothing
here says which weights stand behind it; whoever continues is told so. Where that name is a folder here, its content
counts, and a server that was started before the folder was trained again is not found out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentifactory
from sentifactory.corpus.manifest import hash_file
from sentifactory.engines.calibration import Calibration, hash_prompt
from sentifactory.engines.registry import is_address
from sentifactory.environments import has_nvidia_gpu
from sentifactory.models.weights import identify_checkpoint
from sentifactory.task import Task

TFIDF = "tfidf"
KNOWN_BY_NAME = "the model is known by its name alone: whether it is still the same one cannot be seen from here"
# These compute in other numbers on a GPU than on a CPU.
_DEVICE_KINDS = ("vllm", "transformers", "encoder")


def identify_engine(
    kind: str, model: str, task: Task, calibration: Calibration | None = None, **settings: Any
) -> dict[str, Any]:
    """Return all that decides the answers, as plain JSON values by name.

    Args:
        kind: name of an engine, or the address of a server.
        model: folder, hub id, name at an address or, for TF-IDF, the reviews that it learns from.
        task: prompt and answers.
        calibration: that corrects the probabilities; None where they stay as the model gives them.
        settings: whatever else decides them, such as the mode.
    """
    found: dict[str, Any] = {
        "version": sentifactory.__version__,
        "engine": "address" if is_address(kind) else kind,
        **(identify_reviews(model) if kind == TFIDF else identify_checkpoint(model)),
        "task": hash_prompt(task),
        "calibration": None if calibration is None else calibration.to_dict(),
        **settings,
    }
    if kind in _DEVICE_KINDS:
        found["device"] = "cuda" if has_nvidia_gpu() else "cpu"
    return found


def identify_reviews(source: str) -> dict[str, Any]:
    """Return what tells the reviews that TF-IDF learns from: the content of a file, or of all files of a folder."""
    place = Path(source).expanduser()
    if place.is_file():
        return {"training reviews": hash_file(place)}
    files = sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else []
    if not files:
        return {"name": source}
    return {"training reviews": {str(file.relative_to(place)): hash_file(file) for file in files}}


def is_known_by_name(identity: Mapping[str, Any]) -> bool:
    """Return whether nothing here says which weights answer: a model at an address, or on a hub."""
    return "name" in identity
