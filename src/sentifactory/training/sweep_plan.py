"""What a sweep is made of: recipe, search space, reviews and prompts, all checked before anything is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sentifactory.atomic import refuse_endangered, write_json
from sentifactory.corpus.balance import CLASS_WEIGHTS
from sentifactory.corpus.manifest import hash_file
from sentifactory.errors import ConfigError
from sentifactory.task import Task
from sentifactory.task_choice import DEFAULT, ChosenTask, choose_task, show_task
from sentifactory.task_files import describe_task, has_same_labels, is_same_question, load_task
from sentifactory.training.answer_loss import WHOLE_ANSWER
from sentifactory.training.recipe import Recipe, load_recipe, refuse
from sentifactory.training.recipe_checks import list_inputs
from sentifactory.training.run_card import compute_fingerprint, describe_data
from sentifactory.training.search_space import LOSS, OWN_KEYS, TASK, Space, read_space
from sentifactory.training.taught_task import find_taught_task
from sentifactory.training.trial import TrialRequest
from sentifactory.training.trial_data import SplitFiles, find_split, name_data, refuse_leaks

PLAN, DATA = "plan.json", "data"


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """What the user chooses.

    Attributes:
        recipe: a LLaMA-Factory training YAML.
        overrides: `key=value` words that win over it.
        space_file: the search space; None where `search` says all.
        search: `key=values` words that win over the file.
        output_dir: the sweep's folder.
        trials: of the whole sweep, earlier sessions included.
        task: name or YAML file of what the recipe's reviews are asked; None: the task of their manifest.
        val_path: reviews to choose by; None for the val part beside the training file.
        val_samples: most reviews to choose by.
        seed: of the proposals and of the sample.
        cache_gib: what all trunk caches together may take; None for the usual.
        keep_all: keep the weights of every trial, and not of the best alone.
    """

    recipe: Path
    overrides: tuple[str, ...] = ()
    space_file: Path | None = None
    search: tuple[str, ...] = ()
    output_dir: Path = Path("saves/sweep")
    trials: int = 20
    task: str | None = None
    val_path: Path | None = None
    val_samples: int | None = None
    seed: int = 42
    cache_gib: float | None = None
    keep_all: bool = False


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """A sweep that can be run.

    Attributes:
        options: what the user chose.
        recipe: where the search starts.
        space: what is searched.
        split: the files of the reviews.
        tasks: by the name or file under which the space knows them.
        chosen: what the recipe's own reviews are asked.
    """

    options: SweepOptions
    recipe: Recipe
    space: Space
    split: SplitFiles
    tasks: dict[str, Task]
    chosen: ChosenTask

    def find_start(self) -> dict[str, Any] | None:
        """Return the recipe's own values where all of them lie in the space, else None."""
        named = (name for name, task in self.tasks.items() if is_same_question(task, self.chosen.task))
        own = {TASK: next(named, None), LOSS: WHOLE_ANSWER, **self.recipe.settings}
        is_within = all(key in own and dimension.holds(own[key]) for key, dimension in self.space.items())
        return {key: own[key] for key in self.space} if is_within else None

    def build_settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the recipe of a trial; its output folder is still the recipe's own."""
        chosen = {key: value for key, value in values.items() if key not in OWN_KEYS}
        settings = {**self.recipe.settings, "overwrite_output_dir": True, **chosen}
        if TASK in values:
            data_folder = self.options.output_dir / DATA
            settings |= name_data(data_folder, self.tasks[values[TASK]].name, settings)
        return settings

    def build_request(self, values: Mapping[str, Any]) -> TrialRequest:
        """Return how a trial is judged."""
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


def make_plan(options: SweepOptions) -> SweepPlan:
    """Read and check everything that a sweep is made of; nothing is written.

    Raises:
        ConfigError: when something cannot be used.
        DataError: when reviews cannot be read.
        LeakError: when reviews to choose by are trained on, or test reviews stand among either.
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
                expected="other words for the same question",
            )
    if len({task.name for task in tasks.values()}) < len(tasks):
        raise ConfigError("Two tasks have the same name", where=TASK, next_step="give each a name of its own")
    if tasks and any(CLASS_WEIGHTS in item for item in describe_data(recipe.settings)):
        raise ConfigError(
            "The data were prepared with --balance weights, which reviews written in other words do not carry",
            where=TASK,
            next_step="search without task, or prepare the data with another --balance",
        )
    read = [path for _, path in list_inputs(recipe.settings)]
    refuse_endangered([options.output_dir], [*read, split.val, *split.tests], "--output_dir")
    refuse_leaks(recipe, split)
    return SweepPlan(options, recipe, space, split, tasks, chosen)


def choose_sweep_task(recipe: Recipe, option: str | None, split: SplitFiles) -> ChosenTask:
    """Return what the recipe's own reviews are asked.

    Raises:
        ConfigError: when there is no such task, the reviews are asked in other words, no one task is known, or the
            reviews to choose by were labelled for another one.
    """
    taught = find_taught_task(recipe.settings, option)
    if taught.chosen is None:
        raise ConfigError(
            "It is not known what the training data ask, or they ask several tasks",
            where=str(split.train_jsonl),
            next_step="name the task that they were prepared with by --task",
        )
    own, judged = taught.chosen, choose_task(None, data=[split.val])
    if judged.source != DEFAULT and not has_same_labels(judged.task, own.task):
        raise ConfigError(
            f"The reviews to choose by were labelled for the task {show_task(judged.task)}, and those to train on for "
            f"{show_task(own.task)}",
            where=judged.where,
            next_step="give validation reviews of the same task by --val_path",
        )
    return own


def check_points(recipe: Recipe, space: Space) -> None:
    """Refuse a recipe or a search space of which some trial cannot be trained.

    Raises:
        ConfigError: with every problem of the first point that has any.
    """
    from sentifactory.training.llamafactory import check_recipe
    from sentifactory.training.taught_samples import check_template

    check_recipe(recipe)
    check_template(recipe)
    for key, dimension in space.items():
        for value in dimension.list_edges() if key not in OWN_KEYS else ():
            try:
                check_recipe(Recipe(recipe.path, recipe.overrides, {**recipe.settings, key: value}))
            except ConfigError as error:
                refuse(recipe, [f"with {key} = {value} of the search space: {error.what}"])


def describe_plan(plan: SweepPlan) -> dict[str, Any]:
    """Return all that a sweep's outcome hangs on, as plain JSON values; only the number of trials may change."""
    options = plan.options
    described = {
        "recipe and training reviews": compute_fingerprint(plan.recipe.settings, describe_data(plan.recipe.settings)),
        "validation reviews": [hash_file(plan.split.val), options.val_samples],
        "prompts": [describe_task(task) for task in (plan.chosen.task, *plan.tasks.values())],
        "search space": {key: asdict(dimension) for key, dimension in plan.space.items()},
        "seed": options.seed,
    }
    return dict(json.loads(json.dumps(described)))


def keep_plan(folder: Path, described: Mapping[str, Any], next_step: str) -> None:
    """Write a plan into its folder, or find it there.

    Raises:
        ConfigError: when another one stands there.
    """
    path = folder / PLAN
    if not path.exists():
        write_json(path, described)
        return
    former = json.loads(path.read_text(encoding="utf-8"))
    if changed := [name for name in described if former.get(name) != described[name]]:
        raise ConfigError(
            f"What was begun here has other {', '.join(changed)}", where=str(folder), next_step=next_step
        )
