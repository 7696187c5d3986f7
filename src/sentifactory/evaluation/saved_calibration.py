"""Finds the calibration that lies beside a model, and makes sure that it is this model's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sentifactory.evaluation.calibration import Calibration, load_calibration
from sentifactory.progress import say
from sentifactory.task import Task


def find_saved_calibration(model: str, task: Task, weights: Mapping[str, str], name: str) -> Calibration | None:
    """Return the calibration saved in a model's folder, or None where there is none for this prompt and these weights.

    Args:
        model: the folder; what is no folder here has no calibration.
        task: what is asked.
        weights: SHA-256 of the model's weights, by file name.
        name: what the model is called in messages.

    Raises:
        ConfigError: when the file is there and cannot be used.
    """
    folder = Path(model).expanduser()
    saved = load_calibration(folder, task) if folder.is_dir() else None
    if saved is not None and saved.weights != weights:
        say(f"{name}: its calibration.json was fitted for other weights and is not used")
        return None
    return saved
