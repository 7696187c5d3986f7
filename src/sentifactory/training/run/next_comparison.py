"""The command that compares a trained model, for users to copy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentifactory.engines.vllm.vllm_install import find_vllm_python
from sentifactory.errors import ConfigError
from sentifactory.metrics.calibration_fit import MIN_VALIDATION_REVIEWS
from sentifactory.models.cut_record import read_cut_record
from sentifactory.models.weights import ADAPTER_CONFIG
from sentifactory.system.command_line import write_command
from sentifactory.task.model_folder import iter_manifests

SAMPLE_REVIEW = "房间干净，服务也好，下次还会来。"


def suggest_comparison(card: Mapping[str, Any], model: str | Path) -> str:
    """Return the command after a training: a comparison on the test reviews next to its data, or else a prediction.

    An adapter has to be merged first. An encoder has no base model that could answer: it is compared with the others.

    Args:
        card: the run card.
        model: folder of the trained model.
    """
    recipe = card["recipe"]
    folder, manifest = _find_data(card)
    test, train, val = (folder / f"{part}.csv" for part in ("test", "train", "val"))
    has_val = val.is_file() and manifest["parts"].get("val", {}).get("rows", 0) >= MIN_VALIDATION_REVIEWS
    is_encoder = recipe.get("stage") == "encoder"
    is_adapter = not is_encoder and (Path(model) / ADAPTER_CONFIG).is_file()
    if is_adapter and val.is_file():
        target = Path(model).with_name(f"{Path(model).name}_merged")
        return write_command("export", "merge", model, ("--output_dir", target), ("--val_path", val))
    if is_adapter or not (test.is_file() and train.is_file()):
        return write_command("predict", SAMPLE_REVIEW, ("--model", model))
    reviews = [("--csv_path", test), ("--train_csv", train), ("--train_samples", _count_samples(recipe))]
    if is_encoder:
        return write_command("eval", "ladder", *reviews, ("--encoder_model", model))
    return write_command(
        "eval",
        "compare",
        ("--mode", "score"),
        *reviews,
        ("--val_path", val if has_val else None),
        ("--base_model", find_whole_model(str(recipe["model_name_or_path"]))),
        ("--finetuned_model", model),
        ("--engine", choose_available_engine()),
    )


def suggest_after_stack(stack: Path, train_csv: str, task: str | None) -> str:
    """Return the command that compares a stack with TF-IDF on the test reviews next to its training reviews.

    Where there are none, its answer to a review.
    """
    for folder, name, manifest in iter_manifests(Path(train_csv)):
        test = Path(train_csv).with_name("test.csv")
        if name in (manifest.get("outputs") or ()) and (folder / "test.csv").is_file() and test.is_file():
            named = (("--csv_path", test), ("--train_csv", train_csv), ("--stack_model", stack), ("--task", task))
            return write_command("eval", "ladder", *named, ("--engine", choose_available_engine()))
    return write_command("predict", SAMPLE_REVIEW, ("--model", stack), ("--task", task))


def choose_available_engine() -> str | None:
    """Return the engine to name where vLLM, the default, is not installed; None where it is."""
    try:
        find_vllm_python()
    except ConfigError:
        return "transformers"
    return None


def find_whole_model(model: str) -> str:
    """Return the model that a cut one was made from, where it is next to it; otherwise the model itself."""
    source = read_cut_record(model).get("source", {}).get("name")
    whole = Path(model).parent / str(source)
    return str(whole) if source and whole.is_dir() else model


def _find_data(card: Mapping[str, Any]) -> tuple[Path, Mapping[str, Any]]:
    """Return the folder of the prepared training data and its manifest; one that does not exist for other data."""
    for item in card["data"]:
        for folder, name, manifest in iter_manifests(Path(item["file"])):
            if name in (manifest.get("outputs") or ()) and isinstance(manifest.get("parts"), dict):
                return shorten_path(folder), manifest
    return Path("no_data"), {"parts": {}}


def shorten_path(folder: Path) -> Path:
    """Return a folder as seen from the current one, if it is below it."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _count_samples(recipe: Mapping[str, Any]) -> str | None:
    """Return how many of the training reviews the model has seen, for a fair TF-IDF; None: all."""
    samples = recipe.get("max_samples")
    return None if samples is None else str(samples)
