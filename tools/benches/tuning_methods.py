"""Compares tuning methods (freezing, LoRA, full, fewer layers, losses) on one split: accuracy, time and memory.

Each run is a trial (`trial.py`): a LLaMA-Factory run in its own process with an empty cache of frozen layers, so that
its time is that of a first run. The seed determines the order of the training reviews, in batches as `data prepare`
builds them, and random initialisation (LoRA). A killed run starts from scratch, because a partial time is useless;
finished runs are kept. Test reviews are not used. Times on a busy machine mean little.

Example:
    python -m tools.benches.tuning_methods --reviews 64 --seeds 1 --methods freeze_2,lora
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.cli import run_script
from sentifactory.corpus.splitting.order import order_by_batch
from sentifactory.errors import ConfigError
from sentifactory.models.layer_cut import cut_model
from sentifactory.models.weights import identify_checkpoint
from sentifactory.records import Review
from sentifactory.redaction import mask_settings
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.progress import say
from sentifactory.task.task import Task
from sentifactory.training.acceleration.answer_logits import WHOLE_ANSWER
from sentifactory.training.recipe.recipe import Recipe, load_recipe, suggest
from sentifactory.training.run.checkpoints import hold_output_folder
from sentifactory.training.sweep.sweep_plan import choose_sweep_task, write_or_check_plan
from sentifactory.training.sweep.trial import (
    FINISHED,
    TrialRequest,
    read_outcome,
    remove_weights,
    run_trial_in_subprocess,
    write_trial,
)
from sentifactory.training.sweep.trial_data import (
    SplitFiles,
    build_data_keys,
    find_split,
    read_split,
    refuse_leaks,
    write_reviews,
)
from tools.benches.train_steps import count_reviews, keep_caches_in
from tools.benches.tuning_methods_report import (
    COMMON_SETTINGS,
    FIRST_SEED,
    METHODS,
    REMOVED_KEYS,
    UNTRAINED,
    MethodOptions,
)


def compare_methods(options: MethodOptions) -> str:
    """Run the missing runs, write `methods.json`, `methods.md` and `methods.png`, and return the table.

    Raises:
        ConfigError: when an option, the recipe or its data cannot be used.
        DataError: when reviews cannot be read.
        LeakError: when validation reviews are among the training reviews.
    """
    from tools.benches.tuning_methods_report import report_methods

    check_methods(options.methods)
    recipe = load_recipe(options.recipe, options.overrides)
    split = find_split(recipe, None)
    task = choose_sweep_task(recipe, None, split).announce().task
    refuse_leaks(recipe, split)
    folder = options.output_dir / "methods"
    outcomes: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in (UNTRAINED, *options.methods)}
    with hold_output_folder(folder):
        write_or_check_plan(folder, describe_runs(options, recipe, split), f"remove {folder} to start from scratch")
        write_orders(options, recipe, split, task, folder / "data")
        for name, seed in order_runs(options.methods, options.seeds):
            outcome = run_method(options, recipe, split, name, seed)
            outcomes[name][seed] = outcome
            if outcome["status"] != FINISHED:
                say(f"{name}, seed {seed} {outcome['status']}: {outcome['error']}")
            table = report_methods(options, outcomes)
    return table


def check_methods(names: Sequence[str]) -> None:
    """Refuse an unknown method.

    Raises:
        ConfigError: with the names of all methods.
    """
    if not names:
        raise ConfigError("No method is named", where="--methods", expected=", ".join(METHODS))
    for name in names:
        if name not in METHODS:
            raise ConfigError(
                f"Unknown method {name!r}{suggest(name, list(METHODS))}",
                where="--methods",
                expected=", ".join(METHODS),
            )


def describe_runs(options: MethodOptions, recipe: Recipe, split: SplitFiles) -> dict[str, Any]:
    """Return everything that determines the runs, besides method and seed."""
    described = {
        "model": identify_checkpoint(str(recipe.settings.get("model_name_or_path"))),
        "recipe": mask_settings({key: value for key, value in recipe.settings.items() if key != "output_dir"}),
        "training reviews": [hash_file(split.train_csv) if split.train_csv.is_file() else None, options.reviews],
        "validation reviews": [hash_file(split.val), options.val_samples],
    }
    return dict(json.loads(json.dumps(described)))


def order_runs(methods: Sequence[str], seeds: int) -> Iterator[tuple[str, int]]:
    """Yield method and seed of every run: seed by seed, each time with another method first.

    Changes in the load of the machine then affect all methods equally.

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
    """Write the training reviews in the order of each seed.

    Raises:
        ConfigError: when there are too few.
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
    """Return the reviews in the order of a seed, in batches as `data prepare --batch_size` builds them."""
    shuffled = list(reviews)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - an order, not a secret
    return order_by_batch(shuffled, size, seed)


def build_settings(recipe: Recipe, name: str, seed: int, data_folder: Path) -> dict[str, Any]:
    """Return the settings of a run; a model with fewer layers is cut where it is not there yet."""
    settings = {key: value for key, value in recipe.settings.items() if key not in REMOVED_KEYS}
    own: dict[str, Any] = {}
    if name != UNTRAINED:
        own |= METHODS[name].settings
        if layers := METHODS[name].layers:
            own["model_name_or_path"] = str(data_folder.parent / "models" / f"lowest_{layers}")
            cut_model(str(settings["model_name_or_path"]), layers, Path(own["model_name_or_path"]))
    return {
        **settings,
        **COMMON_SETTINGS,
        "seed": seed,
        **own,
        **build_data_keys(data_folder, f"seed_{seed}", settings),
    }


def run_method(options: MethodOptions, recipe: Recipe, split: SplitFiles, name: str, seed: int) -> dict[str, Any]:
    """Return the outcome of a method with a seed, running it unless it has finished before."""
    folder = options.output_dir / "methods" / f"{name}-{seed}"
    outcome = read_outcome(folder)
    if outcome is not None and outcome["status"] == FINISHED:
        say(f"{name}, seed {seed}: already finished in {folder}")
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
        outcome = run_trial_in_subprocess(folder)
    remove_weights(folder)
    return outcome


def bench_methods(
    recipe: Annotated[Path, typer.Option(help="A LLaMA-Factory training YAML.")] = Path(
        "examples/train_freeze/gemma3_270m_freeze_demo.yaml"
    ),
    methods: Annotated[str, typer.Option(help="Comma-separated tuning methods.")] = ",".join(METHODS),
    reviews: Annotated[int, typer.Option(min=1, help="Training reviews.")] = 1600,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method.")] = 3,
    val_samples: Annotated[
        int | None, typer.Option("--val_samples", min=1, help="Maximum number of validation reviews. [all]")
    ] = None,
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Output folder.")] = Path("saves/bench"),
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[key=value ...]")] = None,
) -> None:
    """Compare tuning methods on one split: accuracy on validation reviews against training time and peak memory.

    Finished runs are kept: the same command continues an interrupted comparison.
    """
    from tools.benches.tuning_methods_report import MethodOptions

    chosen = tuple(name.strip() for name in methods.split(",") if name.strip())
    typer.echo(
        compare_methods(MethodOptions(recipe, tuple(overrides or ()), chosen, reviews, seeds, val_samples, output_dir))
    )


if __name__ == "__main__":
    run_script(bench_methods)
