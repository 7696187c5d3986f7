"""The identity of a model: everything that determines an engine's answers, independent of names and paths.

Saved work that can be resumed (a comparison, a labelling, a teacher's answers, ladder entries) belongs to one
identity. A model retrained in the same folder, another prompt or another calibration has another identity. Not
covered: a model at an address or on a hub is identified by its name alone, because its weights cannot be seen; the
user is told so on resuming. If that name is a local folder, its content counts; a server started before the folder
changed is not noticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentifactory
from sentifactory.engines.registry import is_address
from sentifactory.metrics.calibration import Calibration, hash_prompt
from sentifactory.models.weights import identify_checkpoint
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.hardware import find_device
from sentifactory.task.task import Task

TFIDF = "tfidf"
KNOWN_BY_NAME = "the model is identified by its name alone: whether its weights have changed cannot be verified"
# Engines whose results differ between GPU and CPU.
_DEVICE_KINDS = ("vllm", "transformers", "encoder")


def identify_engine(
    kind: str, model: str, task: Task, calibration: Calibration | None = None, **settings: Any
) -> dict[str, Any]:
    """Return everything that determines the answers, as JSON values by name.

    Args:
        kind: name of an engine, or the address of a server.
        model: folder, hub id, name at an address or, for TF-IDF, its training reviews.
        task: prompt and answers.
        calibration: applied to the probabilities; None for none.
        settings: further settings that matter, such as the mode.
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
        found["device"] = find_device()
    return found


def identify_reviews(source: str) -> dict[str, Any]:
    """Return the hashes of TF-IDF's training reviews: of a file, or of all files in a folder."""
    place = Path(source).expanduser()
    if place.is_file():
        return {"training reviews": hash_file(place)}
    files = sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else []
    if not files:
        return {"name": source}
    return {"training reviews": {str(file.relative_to(place)): hash_file(file) for file in files}}


def is_known_by_name(identity: Mapping[str, Any]) -> bool:
    """Return whether a model, at an address or on a hub, is identified by its name alone."""
    return "name" in identity
