"""Trains an encoder classifier by a recipe of ours, with transformers' Trainer.

The same around it as around a run of LLaMA-Factory: every mistake at once, the leak check, progress, safe continuation
and the run card. What is left in the output folder is the best model seen (by `metric_for_best_model`), whole, LoRA
merged; checkpoints are for continuing and go when the run has finished. Not covered: several processes.
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

from sentifactory.corpus.balance import CLASS_WEIGHTS
from sentifactory.corpus.leak_guard import LeakFinding
from sentifactory.progress import say
from sentifactory.task import Task
from sentifactory.task_choice import ChosenTask
from sentifactory.training.checkpoints import (
    choose_start,
    hold_output_folder,
    list_checkpoints,
    remove_checkpoint,
    remove_checkpoints,
)
from sentifactory.training.class_weights import describe_weights
from sentifactory.training.encoder_data import (
    add_soft_labels,
    compute_class_weights,
    compute_features,
    count_cut,
    encode_reviews,
    load_reviews,
)
from sentifactory.training.encoder_model import build_model, merge_lora
from sentifactory.training.encoder_recipe import EncoderSettings, list_review_files, parse_settings
from sentifactory.training.encoder_trainer import build_arguments, build_trainer, define_feature_head
from sentifactory.training.failures import TRANSFORMERS
from sentifactory.training.leak_check import check_recipe_leaks
from sentifactory.training.output_control import ENCODER_LOG_NAME, collect_chatter, quieten_progress_bars
from sentifactory.training.recipe import Recipe
from sentifactory.training.run_card import begin_card, compute_fingerprint, describe_data
from sentifactory.training.run_guard import RunGuard
from sentifactory.training.running import record_run, remove_if_unused
from sentifactory.training.soft_labels import read_soft_labels
from sentifactory.training.taught_samples import CUT, judge_cut
from sentifactory.training.taught_task import choose_encoder_task
from sentifactory.training.watching import RunWatcher


def train_encoder(
    recipe: Recipe,
    *,
    is_verbose: bool = False,
    listeners: Sequence[Any] = (),
    test_files: Sequence[str | Path] = (),
    allow_leaks: bool = False,
) -> dict[str, Any]:
    """Train by an encoder recipe and return the run card.

    Args:
        recipe: with `stage: encoder`.
        is_verbose: show the trainer's log on stderr in place of writing it to a file in the output folder.
        listeners: further callbacks for the trainer, called before ours.
        test_files: files that the model will be tested on, besides those that are known.
        allow_leaks: train although reviews to test on are among those to train on; the run card then says so first.

    Raises:
        ConfigError: when the recipe or its data cannot be used, or the disk is full.
        DataError: when a file of reviews cannot be used.
        EngineError: when the model cannot be loaded.
        LeakError: when reviews to test on are among those to train on.
    """
    settings = parse_settings(recipe)
    files = [file for key in ("dataset", "eval_dataset") for file in list_review_files(settings, key)]
    chosen = choose_encoder_task(settings.task, files, settings.model_name_or_path)
    leaks = check_recipe_leaks(recipe, test_files, allow_leaks=allow_leaks)
    output_dir = Path(settings.output_dir).expanduser()
    settings = dataclasses.replace(settings, output_dir=str(output_dir))
    with hold_output_folder(output_dir), ExitStack() as stack:
        card, start = _begin(recipe, settings, leaks, chosen)
        watcher = RunWatcher(card, stack)
        guard = RunGuard(dataclasses.asdict(settings), card["fingerprint"], stack, chosen.task)
        log_file = None if is_verbose else output_dir / ENCODER_LOG_NAME
        quieten_progress_bars()
        say(f"Training {settings.model_name_or_path} by {recipe.path} into {output_dir}")
        try:
            with record_run(recipe, card, output_dir, watcher, TRANSFORMERS), collect_chatter(log_file):
                if "warning" in card:
                    sys.stdout.write(f"{card['warning']}\n")  # which is the log now
                _train(recipe, settings, chosen.task, card, [*listeners, watcher, guard], start)
        finally:
            if not watcher.has_begun and card["status"] != "finished":
                remove_if_unused(output_dir)
    return card


def _begin(
    recipe: Recipe, settings: EncoderSettings, leaks: LeakFinding, chosen: ChosenTask
) -> tuple[dict[str, Any], str | None]:
    """Return the card of the run, and the checkpoint that it continues from; without one, older checkpoints go."""
    data = describe_data(dataclasses.asdict(settings))
    begun = choose_start(dataclasses.asdict(settings), compute_fingerprint(recipe.settings, data))
    start = begun.get("resume_from_checkpoint")
    if start is None:
        for folder in list_checkpoints(Path(settings.output_dir)):
            say(f"Removing {folder}, a checkpoint of another run.")
            remove_checkpoint(folder)
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
    """Load, train and save; the card gets what is known of the best model."""
    train, held_out = (load_reviews(settings, key, task) for key in ("dataset", "eval_dataset"))
    arguments = build_arguments(settings, is_evaluated=bool(held_out))
    tokenizer, model = build_model(settings, task, is_on_cpu=arguments.device.type == "cpu")
    train_rows, eval_rows = (encode_reviews(reviews, tokenizer) for reviews in (train, held_out))
    card[CUT] = {"train": count_cut(train_rows, train, tokenizer), "eval": count_cut(eval_rows, held_out, tokenizer)}
    for part, counts in card[CUT].items():
        judge_cut(recipe, part, counts, tokenizer.model_max_length)
    if settings.soft_label_path:
        add_soft_labels(train_rows, train, read_soft_labels(Path(settings.soft_label_path), task), tokenizer)
    learner = model
    if settings.finetuning_type == "head":
        began_s = time.monotonic()
        batch_size = settings.per_device_eval_batch_size
        train_rows, eval_rows = (
            compute_features(rows, model, tokenizer, batch_size, arguments.device) for rows in (train_rows, eval_rows)
        )
        learner = define_feature_head()(model)
        card["accelerations"].append(
            {
                "name": "frozen trunk computed once",
                "is_on": True,
                "reviews": len(train_rows) + len(eval_rows),
                "compute_s": round(time.monotonic() - began_s, 3),
            }
        )
    weights = None
    is_prepared_so = settings.class_weights is None and any(CLASS_WEIGHTS in item for item in card["data"])
    if settings.class_weights == "balanced" or is_prepared_so:
        weights = compute_class_weights(train, task)
        card[CLASS_WEIGHTS] = dict(zip(task.labels, weights, strict=True))
        say(describe_weights(card[CLASS_WEIGHTS]))
    trainer = build_trainer(
        settings,
        arguments,
        learner,
        tokenizer,
        train_rows,
        eval_rows,
        weights,
        callbacks,
    )
    card["reviews"] = {"train": len(train_rows), "eval": len(eval_rows)}
    trainer.train(resume_from_checkpoint=start)
    _note_best(card, trainer.state)
    save_classifier(merge_lora(model), tokenizer, settings.output_dir, task)
    remove_checkpoints(Path(settings.output_dir))


def _note_best(card: dict[str, Any], state: Any) -> None:
    """Write the figures of the weights that are kept into the card, in place of those of the last evaluation."""
    for entry in state.log_history:
        if entry.get("step") == state.best_global_step and "eval_loss" in entry:
            card["result"].update({key: value for key, value in entry.items() if key.startswith("eval_")})
            card["result"]["best_step"] = state.best_global_step


def save_classifier(model: Any, tokenizer: Any, output_dir: str | Path, task: Task) -> None:
    """Write model and tokenizer into a folder; each file appears whole, config.json last.

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
