"""Estimates a run from its recipe (`sentifactory train --dry_run`) without loading or downloading weights.

LLaMA-Factory itself tokenises the data, freezes the model, which is on the device `meta`, and adds its adapters, so
the trainable weights are those of the run. Nothing is written but LLaMA-Factory's cache of the tokenised data, which
the run reuses.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.errors import ConfigError
from sentifactory.redaction import mask_arguments
from sentifactory.system.formats import format_seconds
from sentifactory.training.acceleration.accelerations import Accelerations
from sentifactory.training.acceleration.frozen_layer_cache import read_limit
from sentifactory.training.estimate.estimate import estimate_run, find_estimate_obstacle, fits_memory
from sentifactory.training.llamafactory.freezing import correct_trainable
from sentifactory.training.llamafactory.train_recipe import check_recipe
from sentifactory.training.recipe.precision import choose_precision
from sentifactory.training.recipe.recipe import Recipe, load_recipe
from sentifactory.training.run.run_card import summarise_trainable
from sentifactory.training.run.sample_checks import load_samples, load_template
from sentifactory.training.run.trainer_errors import explain_failure
from sentifactory.training.run.trainer_output import capture_trainer_output, disable_progress_bars

if TYPE_CHECKING:
    from rich.table import Table

_GIB = 1 << 30
PLAIN_WIDTH = 100  # columns where stdout is not a terminal


def estimate_recipe(
    path: str | Path, overrides: Sequence[str] = (), *, is_accelerated: bool = True, cache_gib: float | None = None
) -> dict[str, Any]:
    """Return the time and memory of a recipe on this machine, as `--json` prints them.

    Args:
        path: the recipe.
        overrides: `key=value` settings that override the file.
        is_accelerated: False estimates stock LLaMA-Factory.
        cache_gib: disk space for all caches of frozen layers; by default SENTIFACTORY_TRUNK_CACHE_GIB, or 8.

    Raises:
        ConfigError: when the recipe, its data or its model cannot be used, or the run cannot be estimated.
    """
    recipe, precision = choose_precision(load_recipe(path, overrides), is_automatic=is_accelerated)
    cache_bytes = read_limit(cache_gib)
    check_recipe(recipe, needs_weights=False)
    disable_progress_bars()
    facts: dict[str, Any] = {"precision": precision}
    try:
        with capture_trainer_output(Path(os.devnull)):
            args, model, data = prepare_run(recipe, facts)
        correction = correct_trainable(model, recipe.settings) if is_accelerated else None
        accelerations = Accelerations(recipe.settings, facts, cache_bytes, is_wanted=is_accelerated)
        accelerations.install_answer_logits(model, args)
        accelerations.install_fast_decoder(model, args, data["train_dataset"])
        obstacle = find_estimate_obstacle(model, data["train_dataset"])
        if obstacle is not None:
            raise ConfigError(f"This run cannot be estimated: {obstacle}", where=str(recipe.path), code="option-value")
        estimate = estimate_run(
            model, data["train_dataset"], data.get("eval_dataset"), recipe.settings, args, accelerations.plan
        )
    except Exception as error:
        if (explained := explain_failure(error, recipe, has_begun=False)) is None:
            raise
        raise explained from error
    return {
        "recipe_file": str(recipe.path),
        "overrides": mask_arguments(recipe.overrides),
        "parameters": summarise_trainable(
            [(name, value.numel(), value.requires_grad) for name, value in model.named_parameters()]
        ),
        "frozen_again": correction,
        **facts,
        "fits": fits_memory(estimate),
        "estimate": estimate.to_json(),
    }


def prepare_run(recipe: Recipe, facts: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Return the training arguments, the model without weights, and the tokenised data.

    Raises:
        ConfigError: when the template or `cutoff_len` does not fit the model or the data.
    """
    import torch
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_config, load_tokenizer
    from llamafactory.model.adapter import init_adapter
    from llamafactory.model.patcher import patch_config, patch_model
    from transformers import AutoModelForCausalLM

    settings = {**copy.deepcopy(recipe.settings), "overwrite_output_dir": True}
    model_args, data_args, args, finetuning_args, _ = get_train_args(settings)
    tokens = load_tokenizer(model_args)
    template = load_template(recipe, tokens["tokenizer"], data_args)
    data = load_samples(recipe, facts, template, model_args, data_args, args, stage="sft", **tokens)
    config = load_config(model_args)
    patch_config(config, tokens["tokenizer"], model_args, {}, True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=config.dtype or torch.float32, trust_remote_code=False)
    patch_model(model, tokens["tokenizer"], model_args, True, False)
    return args, init_adapter(config, model, model_args, finetuning_args, True).train(), data


def print_estimate(found: Mapping[str, Any]) -> None:
    """Print an estimate as tables on stdout."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False, markup=False)
    estimate, counts = found["estimate"], found["parameters"]
    console.print(
        f"{found['recipe_file']}: on {estimate['device']}, {counts['trainable'] / 1e6:.1f} of "
        f"{counts['total'] / 1e6:.1f} million weights are trainable ({', '.join(counts['names'])})"
    )
    if found["frozen_again"]:
        console.print(f"{found['frozen_again']}.")
    console.print(_build_work(estimate))
    console.print(_build_memory(estimate))
    if not found["fits"]:
        console.print(
            "This is more memory than is available: lower per_device_train_batch_size (and raise "
            "gradient_accumulation_steps in proportion), cutoff_len or freeze_trainable_layers.",
            style="bold red",
        )


def _build_table(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _build_work(estimate: Mapping[str, Any]) -> Table:
    operations, stock = estimate["operations"], estimate["stock_operations"]
    rows = [
        ("reviews per epoch", f"{estimate['reviews']}"),
        ("tokens per review, mean", f"{estimate['tokens'] / max(1, estimate['reviews']):.0f}"),
        ("steps", f"{estimate['steps']} ({estimate['epochs']:.2f} epochs)"),
        ("operations", f"{operations / 1e12:.3g} TF, {operations / stock:.0%} of stock"),
        ("rate of one layer, forward and backward", f"{estimate['operations_per_s'] / 1e9:.3g} GF/s"),
        ("time of all steps", format_seconds(estimate["train_time_s"])),
        ("time of all evaluations", format_seconds(estimate["evaluation_time_s"])),
    ]
    return _build_table("Work", rows)


def _build_memory(estimate: Mapping[str, Any]) -> Table:
    memory = estimate["memory"]
    names = ("weights", "gradients", "optimizer", "activations", "logits", "process", "peak")
    rows = [(name, f"{memory[name] / _GIB:.2f} GiB") for name in names if memory[name]]
    if estimate["free_bytes"]:
        rows.append(("available", f"{estimate['free_bytes'] / _GIB:.2f} GiB"))
    return _build_table("Memory", rows)
