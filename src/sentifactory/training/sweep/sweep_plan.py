"""The plan of a sweep: recipe, search space, reviews and prompts, all checked before anything is written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.system.atomic import refuse_overwriting_inputs, write_json
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.json_text import read_json
from sentifactory.task.task import Task
from sentifactory.task.task_choice import DEFAULT, ChosenTask, choose_task, show_task
from sentifactory.task.task_file import describe_task, has_same_labels, is_same_question, load_task
from sentifactory.training.acceleration.answer_logits import WHOLE_ANSWER
from sentifactory.training.recipe.recipe import Recipe, load_recipe, refuse_problems
from sentifactory.training.recipe.recipe_checks import list_data_files, list_inputs
from sentifactory.training.run.checkpoints import LOCK_NAME
from sentifactory.training.run.run_card import compute_fingerprint, describe_data, read_class_weights
from sentifactory.training.run.run_task import find_training_task
from sentifactory.training.sweep.search_space import LOSS, OWN_KEYS, TASK, Space, read_space
from sentifactory.training.sweep.trial import TrialRequest
from sentifactory.training.sweep.trial_data import SplitFiles, build_data_keys, find_split, refuse_leaks

PLAN, DATA = "plan.json", "data"


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """The options of a sweep.

    Attributes:
        recipe: a LLaMA-Factory training YAML.
        output_dir: the sweep's folder.
        overrides: `key=value` settings that override it.
        space_file: the search space; None where `search` defines all of it.
        search: `key=values` options that override the file.
        trials: total number, including earlier sessions.
        task: of the recipe's reviews, a name or a YAML file; None: the one in their manifest.
        val_path: validation reviews; None: the val part next to the training file.
        val_samples: maximum number of validation reviews; None: all.
        seed: of the proposals and of the sample.
        cache_gib: disk space for all caches of frozen layers; None: the default.
        keep_all: keep the weights of every trial, not only of the best one.
    """

    recipe: Path
    output_dir: Path = field(kw_only=True)
    overrides: tuple[str, ...] = ()
    space_file: Path | None = None
    search: tuple[str, ...] = ()
    trials: int = 20
    task: str | None = None
    val_path: Path | None = None
    val_samples: int | None = None
    seed: int = 42
    cache_gib: float | None = None
    keep_all: bool = False


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """A validated sweep.

    Attributes:
        options: of the user.
        recipe: the starting point of the search.
        space: the search space.
        split: the files of the reviews.
        tasks: of the search space, by name or file.
        chosen: the task of the recipe's own reviews.
    """

    options: SweepOptions
    recipe: Recipe
    space: Space
    split: SplitFiles
    tasks: dict[str, Task]
    chosen: ChosenTask

    def find_start(self) -> dict[str, Any] | None:
        """Return the recipe's own values, or None where they are not all in the space."""
        named = (name for name, task in self.tasks.items() if is_same_question(task, self.chosen.task))
        own = {TASK: next(named, None), LOSS: WHOLE_ANSWER, **self.recipe.settings}
        is_within = all(key in own and dimension.contains(own[key]) for key, dimension in self.space.items())
        return {key: own[key] for key in self.space} if is_within else None

    def build_settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a trial, still with the recipe's output folder."""
        chosen = {key: value for key, value in values.items() if key not in OWN_KEYS}
        settings = {**self.recipe.settings, "overwrite_output_dir": True, **chosen}
        if TASK in values:
            data_folder = self.options.output_dir / DATA
            settings |= build_data_keys(data_folder, self.tasks[values[TASK]].name, settings)
        return settings

    def build_request(self, values: Mapping[str, Any]) -> TrialRequest:
        """Return how a trial is trained and evaluated."""
        options, val_file = self.options, self.split.val
        if TASK in values:
            val_file = options.output_dir / DATA / self.tasks[values[TASK]].name / "val.csv"
        return TrialRequest(
            str(val_file),
            values.get(TASK, options.task),
            options.val_samples,
            options.seed,
            values.get(LOSS, WHOLE_ANSWER),
            options.cache_gib,
        )


def find_sweep_folder(recipe: Path, overrides: Sequence[str]) -> Path:
    """Return the folder of a sweep for which the user names none: within that of the recipe's model.

    Raises:
        ConfigError: when the recipe cannot be read.
    """
    return Path(str(load_recipe(recipe, overrides).settings.get("output_dir", "saves"))).expanduser() / "sweep"


def make_plan(options: SweepOptions) -> SweepPlan:
    """Read and check everything that a sweep needs; nothing is written.

    Raises:
        ConfigError: when something cannot be used.
        DataError: when reviews cannot be read.
        LeakError: when validation reviews are among the training reviews, or test reviews among either.
    """
    if options.trials < 1:
        raise ConfigError(f"The number of trials is {options.trials}", where="--trials", expected="1 or more")
    recipe = load_recipe(options.recipe, options.overrides)
    space = read_space(options.space_file, options.search)
    check_points(recipe, space)
    split = find_split(recipe, options.val_path)
    chosen = choose_sweep_task(recipe, options.task, split).announce()
    own = chosen.task
    tasks = {str(name): load_task(str(name)) for name in (space[TASK].choices if TASK in space else ())}
    for task in tasks.values():
        if task.labels != own.labels:
            raise ConfigError(
                f"The task {task.name} has the labels {', '.join(task.labels)}, and {own.name} has "
                f"{', '.join(own.labels)}",
                where=TASK,
                expected="another prompt for the same labels",
            )
    if len({task.name for task in tasks.values()}) < len(tasks):
        raise ConfigError("Two tasks have the same name", where=TASK, next_step="give them different names")
    if tasks and any(read_class_weights(file) is not None for _, file in list_data_files(recipe.settings)):
        raise ConfigError(
            "The data were prepared with --balance weights, which rewritten prompts would lose",
            where=TASK,
            next_step="remove task from the search space, or prepare the data with another --balance",
        )
    read = [path for _, path in list_inputs(recipe.settings)]
    refuse_overwriting_inputs([options.output_dir], [*read, split.val, *split.tests], "--output_dir")
    refuse_leaks(recipe, split)
    return SweepPlan(options, recipe, space, split, tasks, chosen)


def choose_sweep_task(recipe: Recipe, option: str | None, split: SplitFiles) -> ChosenTask:
    """Return the task of the recipe's own reviews.

    Raises:
        ConfigError: when the task does not exist, does not match the reviews, is not known, or is not that of the
            validation reviews.
    """
    training_task = find_training_task(recipe.settings, option)
    if training_task.chosen is None:
        raise ConfigError(
            "The training data have no known task, or several",
            where=str(split.train_jsonl),
            next_step="name the task that they were prepared with (--task)",
        )
    own, validation = training_task.chosen, choose_task(None, data=[split.val])
    if validation.source != DEFAULT and not has_same_labels(validation.task, own.task):
        raise ConfigError(
            f"The validation reviews were labelled for the task {show_task(validation.task)}, and the training "
            f"reviews for {show_task(own.task)}",
            where=validation.where,
            next_step="name validation reviews of the same task (--val_path)",
        )
    return own


def check_points(recipe: Recipe, space: Space) -> None:
    """Refuse a recipe or a search space that contains a trial which cannot be trained.

    Raises:
        ConfigError: with every problem of the first invalid point.
    """
    from sentifactory.training.llamafactory.train_recipe import check_recipe
    from sentifactory.training.run.sample_checks import check_template

    check_recipe(recipe)
    check_template(recipe)
    for key, dimension in space.items():
        for value in dimension.list_extremes() if key not in OWN_KEYS else ():
            try:
                check_recipe(Recipe(recipe.path, recipe.overrides, {**recipe.settings, key: value}))
            except ConfigError as error:
                refuse_problems(recipe, [f"with {key} = {value} of the search space: {error.what}"])


def describe_plan(plan: SweepPlan) -> dict[str, Any]:
    """Return everything that determines a sweep, except the number of trials, as plain JSON values."""
    options = plan.options
    described = {
        "recipe and training reviews": compute_fingerprint(plan.recipe.settings, describe_data(plan.recipe.settings)),
        "validation reviews": [hash_file(plan.split.val), options.val_samples],
        "prompts": [describe_task(task) for task in (plan.chosen.task, *plan.tasks.values())],
        "search space": {key: asdict(dimension) for key, dimension in plan.space.items()},
        "seed": options.seed,
    }
    return dict(json.loads(json.dumps(described)))


def write_or_check_plan(folder: Path, described: Mapping[str, Any], next_step: str) -> None:
    """Write a plan into its folder, which must be empty but for its lock, or compare it with the one there.

    Raises:
        ConfigError: when the folder has another plan, or other files.
    """
    path = folder / PLAN
    if not os.path.lexists(path):
        if foreign := next((found for found in sorted(folder.iterdir()) if found.name != LOCK_NAME), None):
            raise ConfigError(
                "The output folder contains a file that is not from this command",
                where=str(foreign),
                next_step="move that file, or choose another --output_dir",
            )
        write_json(path, described)
        return
    try:
        existing = read_json(path)
        if not isinstance(existing, dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The plan in this folder cannot be read ({error})", where=str(path), next_step=next_step
        ) from error
    if changed := [name for name in described if existing.get(name) != described[name]]:
        raise ConfigError(
            f"The run in this folder has other {', '.join(changed)}", where=str(folder), next_step=next_step
        )
