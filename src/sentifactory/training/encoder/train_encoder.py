"""Trains an encoder classifier by an encoder recipe, with transformers' Trainer.

As for a LLaMA-Factory run, all mistakes are reported at once, and there are a leak check, progress, safe continuation
and a run card. The output folder ends up with the best model (by `metric_for_best_model`), with LoRA adapters merged;
checkpoints only serve continuation and are removed at the end. Not covered: several processes.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sentifactory.corpus.leakage.leak_guard import LeakFinding
from sentifactory.corpus.splitting.balance import CLASS_WEIGHTS
from sentifactory.system.progress import say
from sentifactory.task.task import Task
from sentifactory.task.task_choice import ChosenTask
from sentifactory.training.distillation.soft_labels import read_soft_labels
from sentifactory.training.encoder.encoder_data import (
    add_soft_labels,
    compute_class_weights,
    compute_features,
    count_cut,
    encode_reviews,
    load_reviews,
)
from sentifactory.training.encoder.encoder_model import build_model, merge_lora
from sentifactory.training.encoder.encoder_recipe import EncoderSettings, list_review_files, parse_settings
from sentifactory.training.encoder.encoder_trainer import build_arguments, build_trainer, define_feature_head
from sentifactory.training.label_loss.class_weights import describe_weights
from sentifactory.training.recipe.recipe import Recipe
from sentifactory.training.recipe.recipe_leaks import check_recipe_leaks
from sentifactory.training.run.checkpoint_callback import CheckpointCallback
from sentifactory.training.run.checkpoints import choose_start, hold_output_folder, remove_checkpoints, remove_former
from sentifactory.training.run.progress_callback import ProgressCallback
from sentifactory.training.run.record_run import record_run, remove_if_unused
from sentifactory.training.run.run_card import begin_card, compute_fingerprint, describe_data
from sentifactory.training.run.run_phases import CHECKING, LOADING, announce_phase
from sentifactory.training.run.run_task import choose_encoder_task
from sentifactory.training.run.sample_checks import CUT, check_cut_samples
from sentifactory.training.run.trainer_errors import TRANSFORMERS
from sentifactory.training.run.trainer_output import ENCODER_LOG_NAME, capture_trainer_output, disable_progress_bars


def train_encoder(
    recipe: Recipe,
    *,
    is_verbose: bool = False,
    callbacks: Sequence[Any] = (),
    test_files: Sequence[str | Path] = (),
    allow_leaks: bool = False,
) -> dict[str, Any]:
    """Train by an encoder recipe and return the run card.

    Args:
        recipe: with `stage: encoder`.
        is_verbose: show the trainer's log on stderr instead of writing it to a file in the output folder.
        callbacks: more callbacks for the trainer, called before ours.
        test_files: test files of the model, besides those that the data's manifest names.
        allow_leaks: train even if test reviews are among the training reviews; the run card then says so first.

    Raises:
        ConfigError: when the recipe or its data cannot be used, or the disk is full.
        DataError: when a file of reviews cannot be used.
        EngineError: when the model cannot be loaded.
        LeakError: when test reviews are among the training reviews.
    """
    announce_phase(CHECKING)
    settings = parse_settings(recipe)
    files = [file for key in ("dataset", "eval_dataset") for file in list_review_files(settings, key)]
    chosen = choose_encoder_task(settings.task, files, settings.model_name_or_path)
    leaks = check_recipe_leaks(recipe, test_files, allow_leaks=allow_leaks)
    output_dir = Path(settings.output_dir).expanduser()
    settings = dataclasses.replace(settings, output_dir=str(output_dir))
    with hold_output_folder(output_dir), ExitStack() as stack:
        card, start = _begin(recipe, settings, leaks, chosen)
        progress = ProgressCallback(card, stack)
        checkpointing = CheckpointCallback(dataclasses.asdict(settings), card["fingerprint"], stack, chosen.task)
        log_file = None if is_verbose else output_dir / ENCODER_LOG_NAME
        disable_progress_bars()
        say(f"Training {settings.model_name_or_path} by {recipe.path} into {output_dir}")
        try:
            with record_run(recipe, card, output_dir, progress, TRANSFORMERS), capture_trainer_output(log_file):
                if "warning" in card:
                    sys.stdout.write(f"{card['warning']}\n")  # stdout is the log here
                _train(recipe, settings, chosen.task, card, [*callbacks, progress, checkpointing], start)
            checkpointing.keep_best()
        finally:
            if not progress.has_begun and card["status"] != "finished":
                remove_if_unused(output_dir)
    return card


def _begin(
    recipe: Recipe, settings: EncoderSettings, leaks: LeakFinding, chosen: ChosenTask
) -> tuple[dict[str, Any], str | None]:
    """Return the run card and the checkpoint to continue from; without one, older checkpoints are removed.

    Raises:
        ConfigError: when the folder has checkpoints of another run, or folders that only look like checkpoints.
    """
    data = describe_data(dataclasses.asdict(settings))
    fingerprint = compute_fingerprint(recipe.settings, data)
    begun = choose_start(dataclasses.asdict(settings), fingerprint)
    start = begun.get("resume_from_checkpoint")
    if start is None:
        remove_former(Path(settings.output_dir), fingerprint)
    card = begin_card(recipe, dataclasses.asdict(settings), data, leaks)
    card["task"] = chosen.to_json()
    card["continued_from"] = start
    return card, start


def _train(
    recipe: Recipe,
    settings: EncoderSettings,
    task: Task,
    card: dict[str, Any],
    callbacks: list[Any],
    start: str | None,
) -> None:
    """Load, train and save; the card gets the metrics of the best model."""
    announce_phase(LOADING)
    train, held_out = (load_reviews(settings, key, task) for key in ("dataset", "eval_dataset"))
    arguments = build_arguments(settings, is_evaluated=bool(held_out))
    tokenizer, model = build_model(settings, task, is_on_cpu=arguments.device.type == "cpu")
    train_rows, eval_rows = (encode_reviews(reviews, tokenizer) for reviews in (train, held_out))
    card[CUT] = {"train": count_cut(train_rows, train, tokenizer), "eval": count_cut(eval_rows, held_out, tokenizer)}
    for part, counts in card[CUT].items():
        check_cut_samples(recipe, part, counts, tokenizer.model_max_length)
    if settings.soft_label_path:
        add_soft_labels(train_rows, train, read_soft_labels(Path(settings.soft_label_path), task), tokenizer)
    trained_model = model
    if settings.finetuning_type == "head":
        began_s = time.monotonic()
        batch_size = settings.per_device_eval_batch_size
        train_rows, eval_rows = (
            compute_features(rows, model, tokenizer, batch_size, arguments.device) for rows in (train_rows, eval_rows)
        )
        trained_model = define_feature_head()(model)
        card["accelerations"].append(
            {
                "name": "frozen trunk computed once",
                "is_on": True,
                "reviews": len(train_rows) + len(eval_rows),
                "compute_s": round(time.monotonic() - began_s, 3),
            }
        )
    weights = None
    has_prepared_weights = settings.class_weights is None and any(CLASS_WEIGHTS in item for item in card["data"])
    if settings.class_weights == "balanced" or has_prepared_weights:
        weights = compute_class_weights(train, task)
        card[CLASS_WEIGHTS] = dict(zip(task.labels, weights, strict=True))
        say(describe_weights(card[CLASS_WEIGHTS]))
    trainer = build_trainer(
        settings,
        arguments,
        trained_model,
        tokenizer,
        train_rows,
        eval_rows,
        weights,
        callbacks,
    )
    card["reviews"] = {"train": len(train_rows), "eval": len(eval_rows)}
    trainer.train(resume_from_checkpoint=start)
    _record_best(card, trainer.state)
    save_classifier(merge_lora(model), tokenizer, settings.output_dir, task)
    remove_checkpoints(Path(settings.output_dir))


def _record_best(card: dict[str, Any], state: Any) -> None:
    """Replace the metrics of the last evaluation in the card by those of the kept weights."""
    for entry in state.log_history:
        if entry.get("step") == state.best_global_step and "eval_loss" in entry:
            card["result"].update({key: value for key, value in entry.items() if key.startswith("eval_")})
            card["result"]["best_step"] = state.best_global_step


def save_classifier(model: Any, tokenizer: Any, output_dir: str | Path, task: Task) -> None:
    """Write model and tokenizer into a folder, each file atomically and config.json last.

    Raises:
        OSError: when the disk is full.
    """
    folder = Path(output_dir)
    model.config.id2label = dict(enumerate(task.labels))
    model.config.label2id = {label: index for index, label in enumerate(task.labels)}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".model.", suffix=".part") as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        for file in sorted(Path(temporary).iterdir(), key=lambda file: file.name == "config.json"):
            file.chmod(0o644)
            os.replace(file, folder / file.name)
