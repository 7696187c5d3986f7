"""The reviews of trials: training, validation and test files, the leak check, and other prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.corpus.dataset.dataset_files import write_parts
from sentifactory.corpus.dataset.dataset_info import name_dataset, register_datasets
from sentifactory.corpus.leakage.leak_guard import LeakFinding, TrainFile, find_held_out, find_leaks
from sentifactory.errors import ConfigError
from sentifactory.records import Review
from sentifactory.system.atomic import replace_directory, write_json
from sentifactory.system.progress import say
from sentifactory.task.model_folder import MANIFEST
from sentifactory.task.task import Task
from sentifactory.task.task_file import record_task
from sentifactory.training.recipe.known_training import list_train_files, read_earlier_training
from sentifactory.training.recipe.recipe import Recipe
from sentifactory.training.recipe.recipe_checks import list_data_files


@dataclass(frozen=True, slots=True)
class SplitFiles:
    """The files of one split.

    Attributes:
        train_jsonl: the recipe's first training file.
        train_csv: the same reviews as CSV; may be missing.
        val: labelled validation reviews.
        tests: test reviews, which are used only in the leak check.
    """

    train_jsonl: Path
    train_csv: Path
    val: Path
    tests: tuple[Path, ...]


def find_split(recipe: Recipe, val_path: Path | None) -> SplitFiles:
    """Return the files of the split that a recipe trains on.

    Raises:
        ConfigError: when the training file is not local, or no validation reviews are found.
    """
    files = [path for _, path in list_data_files(recipe.settings, ["dataset"])]
    if not files:
        raise ConfigError("The recipe's training data are not local files", where=str(recipe.path))
    train = files[0]
    known = [path for _, path in list_data_files(recipe.settings, ["eval_dataset"])]
    candidates = [val_path] if val_path else [train.with_name("val.csv"), *known]
    val = next((path for path in candidates if path.is_file()), None)
    if val is None:
        raise ConfigError(
            "There are no validation reviews",
            where=str(candidates[0]),
            expected="a file of labelled reviews",
            next_step="create them with sentifactory data prepare, or name a file with --val_path",
        )
    tests = tuple(path for path in find_held_out([train]) if path.stem == "test")
    return SplitFiles(train, train.with_suffix(".csv"), val, tests)


def refuse_leaks(recipe: Recipe, split: SplitFiles) -> None:
    """Refuse validation reviews among the training reviews, and test reviews among either.

    Raises:
        LeakError: when there are any.
        DataError: when the validation or test reviews cannot be read.
    """
    train = [*list_train_files(recipe), *read_earlier_training(recipe.settings).files]
    found: list[LeakFinding] = [find_leaks(train, [split.val, *split.tests])]
    if split.tests:
        found.append(find_leaks([TrainFile(split.val)], split.tests))
    for finding in found:
        finding.refuse(next_step="name validation reviews that are neither training nor test reviews (--val_path)")
        say(f"Leak check: {finding.summarise()}")


def read_split(split: SplitFiles, task: Task) -> dict[str, list[Review]]:
    """Return the training and validation reviews as records, to be written with another prompt.

    Raises:
        ConfigError: when the training reviews are not available as CSV.
        DataError: when a file cannot be used.
    """
    from sentifactory.corpus.dataset.dataset_files import read_labelled

    if not split.train_csv.is_file():
        raise ConfigError(
            "The training reviews are not available as CSV, so their prompt cannot be changed",
            where=str(split.train_csv),
            next_step="create it with sentifactory data prepare, which writes a CSV next to the JSONL",
        )
    return {part: read_labelled(path, task)[0] for part, path in (("train", split.train_csv), ("val", split.val))}


def write_reviews(data_folder: Path, name: str, parts: Mapping[str, Sequence[Review]], task: Task) -> Path:
    """Write reviews with the prompt of a task, registered as `<name>_train` and `<name>_val`; return their folder."""
    data_folder.mkdir(parents=True, exist_ok=True)
    with replace_directory(data_folder / name) as folder:
        write_parts(folder, parts, task)
        write_json(folder / MANIFEST, {"task": record_task(task)})
    register_datasets(data_folder, name, list(parts))
    return data_folder / name


def build_data_keys(data_folder: Path, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe's data keys for reviews from `write_reviews`."""
    keys = {"dataset_dir": str(data_folder), "dataset": name_dataset(name, "train")}
    return keys | ({"eval_dataset": name_dataset(name, "val")} if settings.get("eval_dataset") else {})
