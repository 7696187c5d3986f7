"""The inputs of `recipe_seeds`: options, models with their training reviews, and what is refused before scoring."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.corpus.dataset.dataset_files import read_labelled
from sentifactory.corpus.leakage.leak_guard import TrainFile, find_leaks_by_file
from sentifactory.engines.registry import check_engine, split_by_prompt
from sentifactory.errors import ConfigError
from sentifactory.models.weights import hash_weights
from sentifactory.records import Review
from sentifactory.system.atomic import refuse_overwriting_inputs
from sentifactory.system.fingerprint import compute_fingerprint
from sentifactory.system.progress import say
from sentifactory.task.task import Task
from sentifactory.task.task_choice import choose_task
from sentifactory.training.recipe.known_training import read_training
from sentifactory.training.run.run_card import CARD_NAME, read_card

ENGINE = "transformers"
_NAME = re.compile(r"[\w-]+")  # names are parts of file names


@dataclass(frozen=True, slots=True)
class SeedOptions:
    """The options of the measurement.

    Attributes:
        models: folders by name, RECIPE-SEED.
        tests: files of test reviews by name.
        train_csv: all training reviews.
        val_csv: validation reviews, on which stacks are fitted.
        output_dir: of the report; the answers are in its folder `recipe_seeds`.
    """

    models: dict[str, str]
    tests: dict[str, str]
    train_csv: str
    val_csv: str
    output_dir: Path = Path("saves/bench")

    @property
    def report_file(self) -> Path:
        """The JSON file of the report; the table is next to it."""
        return self.output_dir / "recipe_seeds.json"

    @property
    def answers_folder(self) -> Path:
        """The folder of the journals."""
        return self.output_dir / "recipe_seeds"


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A tuned model.

    Attributes:
        name: RECIPE-SEED.
        folder: of its checkpoint.
        reviews: those that it was trained on, or as many of `--train_csv`.
        has_own_reviews: whether they are those that it was trained on.
        weights: hashes of its weights.
    """

    name: str
    folder: str
    reviews: list[Review]
    has_own_reviews: bool
    weights: dict[str, str]

    @property
    def recipe(self) -> str:
        """The recipe in its name."""
        return self.name.rpartition("-")[0]

    @property
    def seed(self) -> str:
        """The seed in its name."""
        return self.name.rpartition("-")[2]


def parse_named(values: Sequence[str], option: str) -> dict[str, str]:
    """Return the paths of an option that is given several times, by their names.

    Raises:
        ConfigError: when one is not NAME=PATH, or a name occurs twice.

    Example:
        >>> parse_named(["demo-0=saves/a", "demo-1=saves/b=c"], "--model")
        {'demo-0': 'saves/a', 'demo-1': 'saves/b=c'}
    """
    found: dict[str, str] = {}
    for value in values:
        name, _, path = value.partition("=")
        if not _NAME.fullmatch(name) or not path:
            raise ConfigError(
                f"The value is {value!r}", where=option, expected="NAME=PATH; a name has letters, digits, _ and -"
            )
        if name in found:
            raise ConfigError(f"The name {name} occurs twice", where=option, expected="different names")
        found[name] = path
    return found


def check_options(options: SeedOptions) -> Task:
    """Return the task of all models, after refusing what cannot work before reviews are read.

    Raises:
        ConfigError: for the first option that cannot be used.
    """
    for name in options.models:
        recipe, _, seed = name.rpartition("-")
        if not recipe or not seed:
            raise ConfigError(
                f"The model is named {name!r}", where="--model", expected="RECIPE-SEED=FOLDER, such as demo-0=FOLDER"
            )
    inputs = [*options.models.values(), *options.tests.values(), options.train_csv, options.val_csv]
    outputs = [options.report_file, options.report_file.with_suffix(".md"), options.answers_folder]
    refuse_overwriting_inputs(outputs, inputs, "--output_dir")
    if len({Path(path).resolve() for path in options.tests.values()}) < len(options.tests):
        raise ConfigError("A test file is named twice", where="--test", expected="different files")
    for folder in options.models.values():
        check_engine(ENGINE, folder)
    asking, _ = split_by_prompt((ENGINE, folder) for folder in options.models.values())
    data = [options.train_csv, options.val_csv, *options.tests.values()]
    return choose_task(models=asking, data=data).announce().task


def read_model(name: str, folder: str, train: Sequence[Review], task: Task) -> TrainedModel:
    """Return a model with its training reviews.

    They are read from the files that its run card names. Where these are missing or have changed, or `max_samples`
    limits a data set of several files, of which it is then not known what was taken from each, as many of `train` take
    their place.

    Raises:
        ConfigError: when the folder has no run card: nothing is known about its training reviews then.
        DataError: when they cannot be read as labelled reviews.
    """
    card = read_card(folder)
    if card is None or not isinstance(card.get("recipe"), dict):
        raise ConfigError(
            "The model has no run card: it is not known what it was trained on",
            where=str(Path(folder) / CARD_NAME),
            expected="a folder that `sentifactory train` has written",
        )
    known = read_training(folder)
    limit = card["recipe"].get("max_samples")
    problem = known.problem or ("" if known.files else "No training file is known.")
    if limit and any(file.max_rows is None for file in known.files):
        problem = problem or "It is not known which rows of its training files max_samples has left."
    has_own = not problem
    if has_own:
        own = [row for file in known.files for row in read_labelled(file.path, task, file.max_rows)[0]]
    else:
        n_trained = (card.get("estimate") or {}).get("reviews") or limit
        own = list(train[:n_trained])
        say(f"{name}: {problem} TF-IDF learns from {len(own)} other reviews.")
    return TrainedModel(name, folder, own, has_own, hash_weights(Path(folder)))


def refuse_same_weights(models: Sequence[TrainedModel]) -> None:
    """Refuse to count a model twice.

    A recipe's `seed` alone changes nothing where the order of the reviews is fixed, and gives the same weights again.

    Raises:
        ConfigError: naming both models.
    """
    first: dict[str, str] = {}
    for model in models:
        if (other := first.setdefault(compute_fingerprint(model.weights), model.name)) != model.name:
            raise ConfigError(
                f"{other} and {model.name} have the same weights",
                where="--model",
                expected="models trained on other samples or orders of the reviews",
            )


def refuse_leaks(options: SeedOptions) -> list[dict[str, Any]]:
    """Refuse reviews of one part that are in another; return what was found, file by file.

    Raises:
        LeakError: at the first file with a leak.
    """
    known = {name: read_training(folder) for name, folder in options.models.items()}
    train = dict.fromkeys(
        [*(file for one in known.values() for file in one.files), TrainFile(Path(options.train_csv))]
    )
    tests, val = [*map(Path, options.tests.values())], Path(options.val_csv)
    found = [
        *find_leaks_by_file([*train], [*tests, val]),
        *find_leaks_by_file([TrainFile(val)], tests),
    ]
    for finding in found:
        finding.refuse(next_step="measure on a copy without them (sentifactory data check --unseen writes one)")
        say(f"Leak check: {finding.summarise()}")
    for problem in dict.fromkeys(one.problem for one in known.values() if one.problem):
        say(f"Leak check: {problem}")
    return [finding.to_json() for finding in found]
