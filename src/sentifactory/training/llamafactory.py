"""Runs a LLaMA-Factory recipe in this process, through LLaMA-Factory's own entry point.

Data pipeline, arguments, trainer and outputs are LLaMA-Factory's. Added around it: one sentence for every mistake in a
recipe, exact accelerations, a frozen set that is really frozen, progress, safe continuation and the run card. Not
covered: starting several processes (`llamafactory-cli train` and torchrun do that) and Ray.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sentifactory.corpus.balance import CLASS_WEIGHTS
from sentifactory.progress import say
from sentifactory.training.answer_loss import WHOLE_ANSWER
from sentifactory.training.checkpoints import choose_start, hold_output_folder, refuse_foreign
from sentifactory.training.class_weights import find_class_weights
from sentifactory.training.failures import explain_refusal
from sentifactory.training.label_loss import choose_listeners
from sentifactory.training.leak_check import check_recipe_leaks
from sentifactory.training.output_control import LOG_NAME, collect_chatter, divert_stdout, quieten_progress_bars
from sentifactory.training.recipe import Recipe, load_recipe, refuse
from sentifactory.training.recipe_checks import find_problems, split_names
from sentifactory.training.run_card import (
    begin_card,
    compute_fingerprint,
    describe_data,
)
from sentifactory.training.run_guard import RunGuard
from sentifactory.training.running import record_run, remove_if_unused
from sentifactory.training.sft_trainer import extend_trainer
from sentifactory.training.taught_samples import watch_samples
from sentifactory.training.taught_task import find_taught_task, tell_taught_task
from sentifactory.training.trunk_cache import read_limit
from sentifactory.training.watching import TrainingWatcher


def train_recipe(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    is_accelerated: bool = True,
    is_verbose: bool = False,
    cache_gib: float | None = None,
    listeners: Sequence[Any] = (),
    test_files: Sequence[str | Path] = (),
    allow_leaks: bool = False,
    task: str | None = None,
    loss: str = WHOLE_ANSWER,
) -> dict[str, Any]:
    """Train by a LLaMA-Factory YAML and return the run card.

    Args:
        path: the recipe.
        overrides: `key=value` words that win over the file.
        is_accelerated: False runs LLaMA-Factory as it is (with progress and run card).
        is_verbose: show LLaMA-Factory's log on stderr in place of writing it to a file in the output folder.
        cache_gib: what all trunk caches together may take on the disk; by default SENTIFACTORY_TRUNK_CACHE_GIB, or 8.
        listeners: further callbacks for the trainer, called before ours; each gets our own as `watcher`.
        test_files: files that the model will be tested on, besides those that are known.
        allow_leaks: train although reviews to test on are among those to train on; the run card then says so first.
        task: name or file of the task that the data teach, by which validation reviews are scored as well; None: the
            one in the data's manifest, or a built-in one whose words their prompts are.
        loss: `answer` for LLaMA-Factory's own loss, `label` for the tokens alone that tell the labels apart.

    Raises:
        ConfigError: when the recipe, its data or its model cannot be used, or the disk is full.
        LeakError: when reviews to test on are among those to train on.
    """
    recipe = load_recipe(path, overrides)
    listeners = [*listeners, *choose_listeners(loss)]
    cache_bytes = read_limit(cache_gib)
    check_recipe(recipe)
    taught = find_taught_task(recipe.settings, task)
    tell_taught_task(taught, str(recipe.settings["model_name_or_path"]))
    leaks = check_recipe_leaks(recipe, test_files, allow_leaks=allow_leaks)
    output_dir = Path(str(recipe.settings["output_dir"])).expanduser()
    data = describe_data(recipe.settings)
    weights = find_class_weights(data, split_names(recipe.settings.get("dataset")))
    with hold_output_folder(output_dir):
        fingerprint = compute_fingerprint(recipe.settings, data, loss)
        settings = choose_start(recipe.settings, fingerprint)
        refuse_foreign(settings, fingerprint)
        settings["disable_tqdm"] = True  # our own display takes its place
        card = begin_card(recipe, settings, data, leaks, loss)
        card["task"] = taught.to_json()
        card[CLASS_WEIGHTS] = weights
        card["continued_from"] = settings.get("resume_from_checkpoint")
        log_file = None if is_verbose else output_dir / LOG_NAME
        with ExitStack() as stack:
            watcher = TrainingWatcher(settings, card, stack, is_accelerated=is_accelerated, cache_bytes=cache_bytes)
            try:
                for listener in listeners:
                    listener.watcher = watcher
                callbacks = [*listeners, watcher, RunGuard(settings, card["fingerprint"], stack, taught.task)]
                with extend_trainer(settings, card, taught.scored_by), watch_samples(recipe, card):
                    _run(recipe, settings, card, watcher, callbacks, log_file)
            finally:
                watcher.accelerations.close()
                if not watcher.has_begun and card["status"] != "finished":
                    remove_if_unused(output_dir)
    return card


def check_recipe(recipe: Recipe) -> None:
    """Refuse a recipe that cannot be trained; nothing is written.

    Raises:
        ConfigError: with every problem in it.
    """
    with divert_stdout(sys.stderr):
        refuse(recipe, find_problems(recipe))
        _parse_arguments(recipe)


def _parse_arguments(recipe: Recipe) -> None:
    """Let LLaMA-Factory judge how the settings go together.

    Raises:
        ConfigError: with LLaMA-Factory's own words.
    """
    from llamafactory.hparams import get_train_args

    settings = copy.deepcopy(recipe.settings)
    # Whether a folder that holds a model may be trained into is decided when the run starts.
    settings["overwrite_output_dir"] = True
    logging.disable(logging.WARNING)
    try:
        get_train_args(settings)
    except Exception as error:
        raise explain_refusal(error, recipe) from error
    finally:
        logging.disable(logging.NOTSET)


def _run(
    recipe: Recipe,
    settings: dict[str, Any],
    card: dict[str, Any],
    watcher: TrainingWatcher,
    callbacks: list[Any],
    log_file: Path | None,
) -> None:
    """Call LLaMA-Factory, and write the last run card however it ends.

    Raises:
        ConfigError: when the user can mend what went wrong.
    """
    from llamafactory.train.tuner import run_exp

    output_dir = Path(str(settings["output_dir"])).expanduser()
    quieten_progress_bars()
    say(f"Training {settings['model_name_or_path']} by {recipe.path} into {output_dir}")
    with record_run(recipe, card, output_dir, watcher), collect_chatter(log_file):
        if "warning" in card:
            sys.stdout.write(f"{card['warning']}\n")  # which is the log now
        run_exp(dict(settings), callbacks=callbacks)
