"""Runs a LLaMA-Factory recipe in this process, through LLaMA-Factory's own entry point.

Data pipeline, arguments, trainer and outputs are LLaMA-Factory's. Added are one clear message for every mistake in a
recipe, exact accelerations, corrected freezing, progress, safe continuation and the run card. Where several processes
were started (`training.processes`), each runs this; the main one decides and writes for all of them.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sentifactory.corpus.splitting.balance import CLASS_WEIGHTS
from sentifactory.models.weights import share_weights
from sentifactory.system.progress import say
from sentifactory.system.ranks import is_main_process
from sentifactory.training.acceleration.answer_logits import WHOLE_ANSWER
from sentifactory.training.acceleration.frozen_layer_cache import read_limit
from sentifactory.training.label_loss.class_weights import find_class_weights
from sentifactory.training.label_loss.label_loss import DEFINITIONS, choose_callbacks
from sentifactory.training.llamafactory.sft_trainer import extend_trainer
from sentifactory.training.llamafactory.training_callback import TrainingCallback
from sentifactory.training.recipe.precision import choose_precision
from sentifactory.training.recipe.recipe import Recipe, load_recipe, refuse_problems
from sentifactory.training.recipe.recipe_checks import find_problems, split_names
from sentifactory.training.recipe.recipe_leaks import check_recipe_leaks
from sentifactory.training.run.checkpoint_callback import CheckpointCallback
from sentifactory.training.run.checkpoints import choose_start, hold_output_folder, refuse_other_run
from sentifactory.training.run.collectives import compare_machines, run_on_main
from sentifactory.training.run.record_run import record_run, remove_if_unused
from sentifactory.training.run.run_card import (
    begin_card,
    compute_fingerprint,
    describe_data,
    identify_code,
    identify_inputs,
    read_card,
)
from sentifactory.training.run.run_phases import CHECKING, LOADING, announce_phase
from sentifactory.training.run.run_task import announce_training_task, find_training_task
from sentifactory.training.run.sample_checks import check_samples
from sentifactory.training.run.trainer_errors import explain_parser_error
from sentifactory.training.run.trainer_output import (
    LOG_NAME,
    capture_trainer_output,
    disable_progress_bars,
    divert_stdout,
)


def train_recipe(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    is_accelerated: bool = True,
    is_verbose: bool = False,
    cache_gib: float | None = None,
    callbacks: Sequence[Any] = (),
    test_files: Sequence[str | Path] = (),
    allow_leaks: bool = False,
    task: str | None = None,
    loss: str = WHOLE_ANSWER,
) -> dict[str, Any]:
    """Train by a LLaMA-Factory YAML and return the run card.

    Args:
        path: the recipe.
        overrides: `key=value` settings that override the file.
        is_accelerated: False runs stock LLaMA-Factory (with progress and run card).
        is_verbose: show LLaMA-Factory's log on stderr instead of writing it to a file in the output folder.
        cache_gib: disk space for all caches of frozen layers; by default SENTIFACTORY_TRUNK_CACHE_GIB, or 8.
        callbacks: more callbacks for the trainer, called before ours, which each of them gets as `training_callback`.
        test_files: test files of the model, besides those that the data's manifest names.
        allow_leaks: train even if test reviews are among the training reviews; the run card then says so first.
        task: name or file of the task of the data; None: the one in the data's manifest, or a built-in one with the
            same prompt.
        loss: `answer` for LLaMA-Factory's own loss, `label` for only the tokens that distinguish the labels, `mixed`
            for these and the whole answer of one review in ten.

    Raises:
        ConfigError: when the recipe, its data or its model cannot be used, or the disk is full.
        LeakError: when test reviews are among the training reviews.
    """
    announce_phase(CHECKING)
    recipe = load_recipe(path, overrides)
    callbacks = [*callbacks, *choose_callbacks(loss)]
    cache_bytes = read_limit(cache_gib)
    recipe, precision = _choose_precision(recipe, loss, is_automatic=is_accelerated)
    check_recipe(recipe)
    trained_task = find_training_task(recipe.settings, task)
    announce_training_task(trained_task, str(recipe.settings["model_name_or_path"]))
    output_dir = Path(str(recipe.settings["output_dir"])).expanduser()
    data = describe_data(recipe.settings)
    weights = find_class_weights(data, split_names(recipe.settings.get("dataset")))
    fingerprint = compute_fingerprint(recipe.settings, data, loss)
    compare_machines(lambda: identify_inputs(recipe.settings, data, loss) | identify_code())
    leaks = run_on_main(lambda: check_recipe_leaks(recipe, test_files, allow_leaks=allow_leaks))
    with ExitStack() as folder:

        def begin() -> dict[str, Any]:
            folder.enter_context(hold_output_folder(output_dir))
            chosen = choose_start(recipe.settings, fingerprint)
            refuse_other_run(chosen, fingerprint)
            return chosen

        settings = run_on_main(begin)
        settings["disable_tqdm"] = True  # replaced by our own display
        card = begin_card(recipe, settings, data, leaks, loss)
        card["loss_definition"] = DEFINITIONS[loss]
        card["precision"] = precision
        card["task"] = trained_task.to_json()
        card[CLASS_WEIGHTS] = weights
        card["continued_from"] = settings.get("resume_from_checkpoint")
        log_file = None if is_verbose else output_dir / LOG_NAME
        output_dir.mkdir(parents=True, exist_ok=True)  # on another machine, where only the log is written
        with ExitStack() as stack:
            training = TrainingCallback(settings, card, stack, is_accelerated=is_accelerated, cache_bytes=cache_bytes)
            try:
                checkpointing = CheckpointCallback(settings, fingerprint, stack, trained_task.task)
                for callback in callbacks:
                    callback.training_callback = training
                with extend_trainer(settings, card, trained_task.scored_by), check_samples(recipe, card):
                    _run(recipe, settings, card, training, [*callbacks, training, checkpointing], log_file)
                checkpointing.keep_best()
            finally:
                training.accelerations.close()
                if not training.has_begun and card["status"] != "finished" and is_main_process():
                    remove_if_unused(output_dir)
    return card


def _choose_precision(recipe: Recipe, loss: str, *, is_automatic: bool) -> tuple[Recipe, dict[str, str]]:
    """Return the recipe with its precision set: that of the run which it continues, or the best on this machine."""
    settings = recipe.settings
    if isinstance(checkpoint := settings.get("resume_from_checkpoint"), str):
        return choose_precision(recipe, read_card(Path(checkpoint).expanduser().parent), is_automatic=is_automatic)
    former = read_card(Path(str(settings.get("output_dir"))).expanduser())
    if former is not None and former.get("status") == "finished" and settings.get("overwrite_output_dir"):
        former = None

    def compute(changed: Mapping[str, Any]) -> str:
        return compute_fingerprint(changed, describe_data(changed), loss)

    return choose_precision(recipe, former, compute, is_automatic=is_automatic)


def check_recipe(recipe: Recipe, *, needs_weights: bool = True) -> None:
    """Refuse a recipe that cannot be trained; nothing is written.

    Args:
        recipe: the recipe.
        needs_weights: whether the model's folder must have its weights; an estimate does without.

    Raises:
        ConfigError: with every problem in it.
    """
    with divert_stdout(sys.stderr):
        refuse_problems(recipe, find_problems(recipe, needs_weights=needs_weights))
        _parse_arguments(recipe)


def _parse_arguments(recipe: Recipe) -> None:
    """Let LLaMA-Factory check that the settings are compatible.

    Raises:
        ConfigError: with LLaMA-Factory's own message.
    """
    from llamafactory.hparams import get_train_args

    settings = copy.deepcopy(recipe.settings)
    # The run itself checks the output folder.
    settings["overwrite_output_dir"] = True
    logging.disable(logging.WARNING)
    try:
        get_train_args(settings)
    except Exception as error:
        raise explain_parser_error(error, recipe) from error
    finally:
        logging.disable(logging.NOTSET)


def _run(
    recipe: Recipe,
    settings: dict[str, Any],
    card: dict[str, Any],
    training: TrainingCallback,
    callbacks: list[Any],
    log_file: Path | None,
) -> None:
    """Call LLaMA-Factory, and write the final run card however it ends.

    Raises:
        ConfigError: for a failure that the user can fix.
    """
    from llamafactory.train.tuner import run_exp

    output_dir = Path(str(settings["output_dir"])).expanduser()
    disable_progress_bars()
    say(f"Training {settings['model_name_or_path']} by {recipe.path} into {output_dir}")
    announce_phase(LOADING)
    with record_run(recipe, card, output_dir, training), capture_trainer_output(log_file):
        if "warning" in card:
            sys.stdout.write(f"{card['warning']}\n")  # stdout is the log here
        run_exp(dict(settings), callbacks=callbacks)
        if is_main_process():
            share_weights(output_dir)
