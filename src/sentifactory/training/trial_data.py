"""The reviews of trials: which files train and judge, that no test review is among them, and their words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.atomic import replace_directory, write_json
from sentifactory.corpus.dataset_info import name_dataset, register_datasets
from sentifactory.corpus.export import write_parts
from sentifactory.corpus.leak_guard import LeakFinding, TrainFile, find_held_out, find_leaks
from sentifactory.errors import ConfigError
from sentifactory.model_task import MANIFEST
from sentifactory.progress import say
from sentifactory.records import Review
from sentifactory.task import Task
from sentifactory.task_files import record_task
from sentifactory.training.leak_check import list_train_files
from sentifactory.training.recipe import Recipe
from sentifactory.training.recipe_checks import list_data_files


@dataclass(frozen=True, slots=True)
class SplitFiles:
    """The files of one split.

    Attributes:
        train_jsonl: the recipe's first training file.
        train_csv: the same reviews as a table, which may be absent.
        val: labelled reviews to judge by.
        tests: held-out reviews that nothing here may look at.
    """

    train_jsonl: Path
    train_csv: Path
    val: Path
    tests: tuple[Path, ...]


def find_split(recipe: Recipe, val_path: Path | None) -> SplitFiles:
    """Return the files of the split that a recipe trains on.

    Raises:
        ConfigError: when the training file is not here, or no validation reviews are known.
    """
    files = [path for _, path in list_data_files(recipe.settings, ["dataset"])]
    if not files:
        raise ConfigError("The recipe's training data are no files here", where=str(recipe.path))
    train = files[0]
    known = [path for _, path in list_data_files(recipe.settings, ["eval_dataset"])]
    choices = [val_path] if val_path else [train.with_name("val.csv"), *known]
    val = next((path for path in choices if path.is_file()), None)
    if val is None:
        raise ConfigError(
            "There are no validation reviews to choose by",
            where=str(choices[0]),
            expected="a file of labelled reviews",
            next_step="make them with sentifactory data prepare, or name a file by --val_path",
        )
    tests = tuple(path for path in find_held_out([train]) if path.stem == "test")
    return SplitFiles(train, train.with_suffix(".csv"), val, tests)


def refuse_leaks(recipe: Recipe, split: SplitFiles) -> None:
    """Refuse validation reviews that are trained on, and test reviews among either.

    Raises:
        LeakError: when there are any.
        DataError: when the validation or test reviews cannot be read.
    """
    found: list[LeakFinding] = [find_leaks(list_train_files(recipe), [split.val, *split.tests])]
    if split.tests:
        found.append(find_leaks([TrainFile(split.val)], split.tests))
    for finding in found:
        finding.refuse(next_step="choose by reviews that are neither trained on nor tested on (--val_path)")
        say(f"Leak check: {finding.summarise()}")


def read_split(split: SplitFiles, task: Task) -> dict[str, list[Review]]:
    """Return the training and validation reviews as records, to be rendered anew.

    Raises:
        ConfigError: when the training reviews are not there as a table.
        DataError: when a file cannot be used.
    """
    from sentifactory.corpus.sampling import read_labelled

    if not split.train_csv.is_file():
        raise ConfigError(
            "The training reviews are not there as a table, so they cannot be asked in other words",
            where=str(split.train_csv),
            next_step="sentifactory data prepare writes one beside the JSONL",
        )
    return {part: read_labelled(path, task)[0] for part, path in (("train", split.train_csv), ("val", split.val))}


def write_reviews(data_folder: Path, name: str, parts: Mapping[str, Sequence[Review]], task: Task) -> Path:
    """Write reviews in the words of a task, registered as `<name>_train` and `<name>_val`, and return their folder."""
    data_folder.mkdir(parents=True, exist_ok=True)
    with replace_directory(data_folder / name) as folder:
        write_parts(folder, parts, task)
        write_json(folder / MANIFEST, {"task": record_task(task)})
    register_datasets(data_folder, name, list(parts))
    return data_folder / name


def name_data(data_folder: Path, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe's keys for reviews that `write_reviews` wrote."""
    words = {"dataset_dir": str(data_folder), "dataset": name_dataset(name, "train")}
    return words | ({"eval_dataset": name_dataset(name, "val")} if settings.get("eval_dataset") else {})
