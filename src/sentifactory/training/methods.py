"""What does freezing cost? Ways of tuning one model on one split, seed by seed in turns, judged on validation reviews.

Each run is a trial (`trial.py`): a real LLaMA-Factory run in a process of its own, with an empty trunk cache of its
own, so that its time is that of a first run. A seed decides the order of the training reviews, in batches as `data
prepare` makes them, and what a method draws (LoRA's first weights). A run that was killed begins anew, since half a
time is none; runs that have ended are kept. Validation reviews decide; test reviews are not looked at. On a machine
that is busy with other work the times say little.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentifactory.corpus.batch_order import order_by_batch
from sentifactory.corpus.manifest import hash_file
from sentifactory.errors import ConfigError
from sentifactory.masking import mask_settings
from sentifactory.models.weights import identify_checkpoint
from sentifactory.progress import say
from sentifactory.records import Review
from sentifactory.task import Task
from sentifactory.training.answer_loss import LABEL, WHOLE_ANSWER
from sentifactory.training.bench import count_reviews, keep_caches_in
from sentifactory.training.checkpoints import hold_output_folder
from sentifactory.training.recipe import Recipe, load_recipe, suggest
from sentifactory.training.sweep_plan import choose_sweep_task, keep_plan
from sentifactory.training.trial import (
    FINISHED,
    TrialRequest,
    read_outcome,
    remove_weights,
    run_trial_apart,
    write_trial,
)
from sentifactory.training.trial_data import SplitFiles, find_split, name_data, read_split, refuse_leaks, write_reviews

FIRST_SEED = 42
UNTRAINED = "untuned"
# What a comparison of methods does without: everything that takes time beside training.
_LEFT_OUT = ("eval_dataset", "val_size", "max_samples", "eval_steps")
_SPARSE = {"save_strategy": "no", "eval_strategy": "no", "plot_loss": False, "overwrite_output_dir": True}


@dataclass(frozen=True, slots=True)
class Method:
    """A way of tuning.

    Attributes:
        title: what the table calls it.
        settings: keys that differ from the recipe.
        loss: `answer` or `label`.
    """

    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    loss: str = WHOLE_ANSWER


def _freeze(layers: int) -> dict[str, Any]:
    return {"finetuning_type": "freeze", "freeze_trainable_layers": layers}


# All weights move with a smaller rate, and an adapter with a larger one, than the last layers do.
METHODS: dict[str, Method] = {
    "freeze_2": Method("freeze, last 2 layers", _freeze(2)),
    "freeze_6": Method("freeze, last 6 layers", _freeze(6)),
    "freeze_12": Method("freeze, last 12 layers", _freeze(12)),
    "full": Method("full, all layers and embeddings", {"finetuning_type": "full", "learning_rate": 5e-5}),
    "lora": Method(
        "LoRA, rank 8, all linear layers",
        {"finetuning_type": "lora", "lora_rank": 8, "lora_target": "all", "learning_rate": 3e-4},
    ),
    "label": Method("freeze, last 6 layers, loss of the label alone", _freeze(6), LABEL),
}


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """What the user chooses.

    Attributes:
        recipe: a LLaMA-Factory training YAML.
        overrides: `key=value` words that win over it.
        methods: names in `METHODS`.
        reviews: training reviews, the first of the training part.
        seeds: runs of each method.
        val_samples: most reviews to judge by; None for all.
        output_dir: where the figures go; the runs stand in its folder `methods`.
    """

    recipe: Path
    overrides: tuple[str, ...] = ()
    methods: tuple[str, ...] = tuple(METHODS)
    reviews: int = 1600
    seeds: int = 3
    val_samples: int | None = None
    output_dir: Path = Path("saves/bench")


def compare_methods(options: MethodOptions) -> str:
    """Run what has not been run yet, write `methods.json`, `methods.md` and `methods.png`, and return the table.

    Raises:
        ConfigError: when an option, the recipe or its data cannot be used.
        DataError: when reviews cannot be read.
        LeakError: when validation reviews are trained on.
    """
    from sentifactory.training.methods_report import report_methods

    check_methods(options.methods)
    recipe = load_recipe(options.recipe, options.overrides)
    split = find_split(recipe, None)
    task = choose_sweep_task(recipe, None, split).announce().task
    refuse_leaks(recipe, split)
    folder = options.output_dir / "methods"
    outcomes: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in (UNTRAINED, *options.methods)}
    with hold_output_folder(folder):
        keep_plan(folder, describe_runs(options, recipe, split), f"remove {folder} to begin anew")
        write_orders(options, recipe, split, task, folder / "data")
        for name, seed in order_runs(options.methods, options.seeds):
            outcome = run_method(options, recipe, split, name, seed)
            outcomes[name][seed] = outcome
            if outcome["status"] != FINISHED:
                say(f"{name}, seed {seed} {outcome['status']}: {outcome['error']}")
            table = report_methods(options, outcomes)
    return table


def check_methods(names: Sequence[str]) -> None:
    """Refuse a method that there is not.

    Raises:
        ConfigError: naming the methods.
    """
    if not names:
        raise ConfigError("No method is named", where="--methods", expected=", ".join(METHODS))
    for name in names:
        if name not in METHODS:
            raise ConfigError(
                f"There is no method {name!r}{suggest(name, list(METHODS))}",
                where="--methods",
                expected=", ".join(METHODS),
            )


def describe_runs(options: MethodOptions, recipe: Recipe, split: SplitFiles) -> dict[str, Any]:
    """Return all that the runs hang on, beside method and seed."""
    described = {
        "model": identify_checkpoint(str(recipe.settings.get("model_name_or_path"))),
        "recipe": mask_settings({key: value for key, value in recipe.settings.items() if key != "output_dir"}),
        "training reviews": [hash_file(split.train_csv) if split.train_csv.is_file() else None, options.reviews],
        "validation reviews": [hash_file(split.val), options.val_samples],
    }
    return dict(json.loads(json.dumps(described)))


def order_runs(methods: Sequence[str], seeds: int) -> Iterator[tuple[str, int]]:
    """Yield method and seed of every run: seed by seed, each time with another method first.

    What a machine does meanwhile then falls on all methods alike.

    Example:
        >>> list(order_runs(["full", "lora"], 2))
        [('untuned', 42), ('full', 42), ('lora', 42), ('lora', 43), ('full', 43)]
    """
    yield UNTRAINED, FIRST_SEED
    for turn in range(seeds):
        first = turn % len(methods)
        for name in [*methods[first:], *methods[:first]]:
            yield name, FIRST_SEED + turn


def write_orders(options: MethodOptions, recipe: Recipe, split: SplitFiles, task: Task, data_folder: Path) -> None:
    """Write the same training reviews in the order of each seed.

    Raises:
        ConfigError: when there are fewer than were asked for.
    """
    parts = read_split(split, task)
    train = parts["train"][: options.reviews]
    if len(train) < options.reviews:
        raise ConfigError(
            f"There are {len(train)} training reviews", where=str(split.train_csv), expected=f"{options.reviews}"
        )
    size = count_reviews(recipe.path, recipe.overrides)
    for turn in range(options.seeds):
        ordered = shuffle_in_batches(train, size, FIRST_SEED + turn)
        write_reviews(data_folder, f"seed_{FIRST_SEED + turn}", {"train": ordered}, task)


def shuffle_in_batches(reviews: Sequence[Review], size: int, seed: int) -> list[Review]:
    """Return the reviews in the order of a seed, in batches as `data prepare --batch_size` makes them."""
    shuffled = list(reviews)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - an order, not a secret
    return order_by_batch(shuffled, size, seed)


def build_settings(recipe: Recipe, name: str, seed: int, data_folder: Path) -> dict[str, Any]:
    """Return the recipe of a run."""
    settings = {key: value for key, value in recipe.settings.items() if key not in _LEFT_OUT}
    own = METHODS[name].settings if name != UNTRAINED else {}
    return {**settings, **_SPARSE, "seed": seed, **own, **name_data(data_folder, f"seed_{seed}", settings)}


def run_method(options: MethodOptions, recipe: Recipe, split: SplitFiles, name: str, seed: int) -> dict[str, Any]:
    """Run a method with a seed, unless its outcome is there, and return the outcome."""
    folder = options.output_dir / "methods" / f"{name}-{seed}"
    outcome = read_outcome(folder)
    if outcome is not None and outcome["status"] == FINISHED:
        say(f"{name}, seed {seed}: {folder} is there and complete")
        return outcome
    if folder.exists():
        shutil.rmtree(folder)
    say(f"{name}, seed {seed}")
    settings = build_settings(recipe, name, seed, options.output_dir / "methods" / "data")
    request = TrialRequest(
        str(split.val),
        val_samples=options.val_samples,
        seed=FIRST_SEED,
        loss=METHODS[name].loss if name != UNTRAINED else WHOLE_ANSWER,
        is_trained=name != UNTRAINED,
    )
    write_trial(folder, settings, request, f"Method {name} with seed {seed}.")
    with tempfile.TemporaryDirectory(prefix="sentifactory-bench-") as cache, keep_caches_in(Path(cache)):
        outcome = run_trial_apart(folder)
    remove_weights(folder)
    return outcome


def find_title(name: str) -> str:
    """Return what the table calls a method."""
    return METHODS[name].title if name in METHODS else "as it was, untuned"
