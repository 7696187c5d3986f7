"""The commands that train a student on soft labels, for users to copy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentifactory.engines.registry import is_address
from sentifactory.system.command_line import write_command
from sentifactory.task.model_folder import iter_manifests
from sentifactory.training.run.next_comparison import SAMPLE_REVIEW, shorten_path

_RECIPE = Path("examples/train_encoder/e5_small_distilled.yaml")
_STUDENT = Path("saves/pretrained/multilingual-e5-small")


def suggest_student(facts: Mapping[str, Any], soft_labels: Path, task: str | None) -> list[str]:
    """Return the commands that train the embedded encoder on the soft labels and the labels of the same data set.

    Reviews outside of a data set have no true labels that are known to fit: then the teacher's answer to a review.

    Args:
        facts: of the soft labels.
        soft_labels: their file.
        task: as the user named it.
    """
    for item in facts["input"]:
        for folder, name, manifest in iter_manifests(Path(item["file"])):
            train, val = (folder / f"{part}.csv" for part in ("train", "val"))
            is_whole = name in (manifest.get("outputs") or ()) and train.is_file() and val.is_file()
            has_labels = (manifest.get("task") or {}).get("labels") == facts["task"]["labels"]
            if is_whole and has_labels and _RECIPE.is_file():
                files = {"dataset": train, "eval_dataset": val, "soft_label_path": soft_labels}
                settings = [f"{key}={shorten_path(path)}" for key, path in files.items()]
                output = f"output_dir={soft_labels.with_name(f'{soft_labels.stem}_student')}"
                fetch = [] if _STUDENT.is_dir() else [write_command("model", "fetch", _STUDENT.name)]
                return [*fetch, write_command("train", _RECIPE, *settings, output)]
    teacher, engine = facts["teacher"]["model"], facts["teacher"]["engine"]
    address = engine if is_address(engine) else None  # without it, the model's name would be taken for a folder
    return [write_command("predict", SAMPLE_REVIEW, ("--model", teacher), ("--engine", address), ("--task", task))]
