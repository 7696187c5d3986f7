"""The commands after one about reviews, for users to copy: prepare a file, train on a prepared data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentifactory.corpus.dataset.dataset_info import name_dataset
from sentifactory.system.command_line import write_command
from sentifactory.system.hardware import find_device, has_nvidia_gpu
from sentifactory.task.model_folder import iter_manifests

_RECIPES = Path("examples/train_freeze")
_GPU_RECIPE = _RECIPES / "qwen2_5_coder_1_5b_freeze_own_data.yaml"
_CPU_RECIPE = _RECIPES / "gemma3_270m_freeze_demo.yaml"
# What the recipe for CPUs needs: the lowest layers of a pretrained model.
_PRETRAINED, _LAYERS = Path("saves/pretrained/gemma-3-270m"), 12
_CUT = _PRETRAINED.with_name(f"{_PRETRAINED.name}-{_LAYERS}")


def suggest_training(manifest: Mapping[str, Any], output_dir: str) -> list[str]:
    """Return the commands from a prepared data set to a trained model, on this machine.

    Args:
        manifest: of the data set.
        output_dir: the folder that holds it and dataset_info.json.
    """
    name = str(manifest["name"])
    train = next((part for part in manifest["parts"] if part.endswith("train") and _has_rows(manifest, part)), None)
    is_on_gpu = has_nvidia_gpu()
    recipe = _GPU_RECIPE if is_on_gpu else _CPU_RECIPE
    if train is None or not recipe.is_file():  # another folder than that of the repository
        return [write_command("data", "show", name, ("--dataset_dir", output_dir))]
    settings = [f"dataset={name_dataset(name, train)}"]
    if output_dir != "data":
        settings.append(f"dataset_dir={output_dir}")
    if is_on_gpu:
        return [
            write_command("train", recipe, *settings, *_evaluate(manifest, name, train), _name_output(recipe, name))
        ]
    commands = []
    if not _PRETRAINED.is_dir():
        commands.append(write_command("model", "fetch", _PRETRAINED.name))
    if not _CUT.is_dir():
        commands.append(write_command("model", "cut", _PRETRAINED, ("--layers", str(_LAYERS)), ("--output_dir", _CUT)))
    if find_device() == "mps":
        settings.append("use_cpu=false")
    if not manifest.get("batch_size"):  # the recipe keeps the order of the file, which is not made for batches
        settings.append("train_sampling_strategy=group_by_length")
    commands.append(write_command("train", recipe, *settings, _name_output(recipe, name), ("--loss", "mixed")))
    return commands


def suggest_for_reviews(
    reviews: str | Path,
    task: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    encoding: str | None = None,
) -> list[str]:
    """Return the commands that train on reviews: those of a prepared data set, or that which prepares a file.

    Args:
        reviews: a file of reviews, or one of a data set.
        task: as it was named for the file; None where it was not.
        text_column: likewise.
        label_column: likewise.
        encoding: likewise.
    """
    for folder, name, manifest in iter_manifests(Path(reviews)):
        if name in (manifest.get("outputs") or ()) and isinstance(manifest.get("parts"), dict):
            place = folder.parent
            shown = place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place
            return suggest_training(manifest, str(shown))
    return [
        write_command(
            "data",
            "prepare",
            reviews,
            ("--task", task),
            ("--text_column", text_column),
            ("--label_column", label_column),
            ("--encoding", encoding),
        )
    ]


def _evaluate(manifest: Mapping[str, Any], name: str, train: str) -> list[str]:
    """Return the settings that name the validation reviews, or that do without."""
    val = f"{train.removesuffix('train')}val"
    if val in manifest["parts"] and _has_rows(manifest, val):
        return [f"eval_dataset={name_dataset(name, val)}"]
    return ["eval_dataset=null", "eval_strategy='no'", "load_best_model_at_end=false", "early_stopping_steps=null"]


def _has_rows(manifest: Mapping[str, Any], part: str) -> bool:
    return bool(manifest["parts"][part]["rows"])


def _name_output(recipe: Path, name: str) -> str:
    model = "qwen2.5-coder-1.5b" if recipe == _GPU_RECIPE else _PRETRAINED.name
    return f"output_dir=saves/{model}/freeze/{name}"
