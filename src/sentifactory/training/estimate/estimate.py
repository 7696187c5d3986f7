"""Estimates the time and memory of a run on this machine, and compares the estimate with the finished run.

Time is the number of operations divided by the measured training rate of one layer on this device, plus the
optimizer's time per trainable weight. Not covered: loading, tokenizing and saving; layer output cached by an earlier
run; streamed data; models whose decoder is not a plain list of layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.system.formats import format_seconds
from sentifactory.system.hardware import count_unread_bytes, read_device_peak, read_free_memory, read_held_memory
from sentifactory.training.acceleration.accelerations import AccelerationPlan
from sentifactory.training.acceleration.answer_logits import find_causal_model
from sentifactory.training.acceleration.shared_prefix import read_tokens
from sentifactory.training.estimate.layer_probe import LayerProbe, probe_layer
from sentifactory.training.estimate.memory_estimate import MemoryNeeds, estimate_memory
from sentifactory.training.estimate.operation_count import (
    Batches,
    LayerSizes,
    ModelSizes,
    count_batches,
    make_batches,
    measure_model,
)

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Estimate:
    """The time and memory of a run.

    Attributes:
        device: of the run.
        reviews: samples per epoch.
        tokens: per epoch, without padding.
        steps: optimizer steps of the whole run.
        epochs: epochs through the data.
        operations: floating-point operations of all steps.
        stock_operations: those of the same steps without accelerations.
        evaluation_operations: those of all evaluations.
        operations_per_s: the measured rate.
        train_time_s: time of all steps.
        evaluation_time_s: time of all evaluations.
        memory: by component.
        free_bytes: available memory of the device; 0 where it is unknown.
    """

    device: str
    reviews: int
    tokens: int
    steps: int
    epochs: float
    operations: float
    stock_operations: float
    evaluation_operations: float
    operations_per_s: float
    train_time_s: float
    evaluation_time_s: float
    memory: MemoryNeeds
    free_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return all fields, and the peak memory."""
        found = asdict(self)
        found["memory"]["peak"] = self.memory.peak
        return found


def find_estimate_obstacle(model: Any, dataset: Any) -> str | None:
    """Return why a run cannot be estimated, or None."""
    causal = find_causal_model(model)
    decoder = getattr(causal, getattr(causal, "base_model_prefix", ""), None)
    if not all(hasattr(decoder, name) for name in ("layers", "embed_tokens", "config")):
        return f"the decoder of {type(causal).__name__} is not a plain list of layers"
    if not {"input_ids", "labels"} <= set(getattr(dataset, "column_names", None) or ()) or not hasattr(
        dataset, "__len__"
    ):
        return "the tokenised data cannot be inspected"
    return None


def estimate_run(
    model: Any, dataset: Any, evaluation: Any, settings: Mapping[str, Any], args: Any, plan: AccelerationPlan
) -> Estimate:
    """Return the estimate of a run on this machine.

    Args:
        model: as the trainer gets it; the weights may be on the device `meta`.
        dataset: the tokenised training data.
        evaluation: the tokenised evaluation data, or None.
        settings: the settings passed to LLaMA-Factory.
        args: its training arguments.
        plan: the accelerations in use.

    Raises:
        ConfigError: when no sample has an answer.
    """
    # Weights are mapped from their file, so the first step still has to read most of them.
    held_bytes = read_held_memory() + count_unread_bytes(".safetensors")
    sizes, tokens = measure_model(model), read_tokens(dataset)
    if len(tokens.shapes) == 0:
        raise ConfigError(
            "No sample has an answer to learn", next_step="raise cutoff_len, or check the data", code="samples-cut"
        )
    order = "sequential" if settings.get("disable_shuffling") else str(args.train_sampling_strategy)
    batches = make_batches(tokens.shapes, args.per_device_train_batch_size, order, args.seed)
    batches_a_step = args.gradient_accumulation_steps
    steps_an_epoch = math.ceil(len(batches.samples) / batches_a_step)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps_an_epoch)
    epochs = steps / steps_an_epoch
    probe = _probe(model, sizes, tokens.shapes, args)
    operations = _count_run(sizes, batches, plan, epochs, is_training=True)
    evaluations = _count_evaluations(args, steps, steps_an_epoch) if evaluation is not None else 0
    evaluated = _count_all_evaluations(sizes, evaluation, settings, args, plan, evaluations) if evaluations else 0.0
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    return Estimate(
        device=str(args.device),
        reviews=len(tokens.shapes),
        tokens=int(tokens.shapes[:, 0].sum()),
        steps=steps,
        epochs=epochs,
        operations=operations,
        stock_operations=_count_run(sizes, batches, AccelerationPlan(), epochs, is_training=True),
        evaluation_operations=evaluated,
        operations_per_s=probe.operations_per_s,
        train_time_s=operations / probe.operations_per_s + steps * trained * probe.optimizer_s_per_weight,
        evaluation_time_s=evaluated / probe.operations_per_s,
        memory=estimate_memory(model, sizes, batches, plan, probe, settings, args, held_bytes),
        free_bytes=read_free_memory(args.device),
    )


def _probe(model: Any, sizes: ModelSizes, shapes: Any, args: Any) -> LayerProbe:
    import torch

    total = sizes.layers[-1].all[0]
    single = replace(
        sizes, layers=(LayerSizes((0, 0), (0, 0), (total, total), False),), first_trained=0, vocabulary=0
    )  # fmt: skip

    def count(samples: int, length: int) -> float:
        import numpy as np

        one = np.array([length])
        return count_batches(
            single, Batches(np.array([samples]), one, one, one, one), AccelerationPlan(), is_training=True
        )[0]

    dtype = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else torch.float32
    return probe_layer(model, args.device, dtype, int(shapes[:, 0].mean()), count)


def _count_run(
    sizes: ModelSizes, batches: Batches, plan: AccelerationPlan, epochs: float, *, is_training: bool
) -> float:
    """Return the operations of some epochs; the cached share of the frozen layers is computed only in the first."""
    total, frozen = count_batches(sizes, batches, plan, is_training=is_training)
    return total * epochs - frozen * plan.cached_share * max(0.0, epochs - 1)


def _count_evaluations(args: Any, steps: int, steps_an_epoch: int) -> int:
    """Return the number of evaluations, including the one that LLaMA-Factory adds at the end."""
    strategy = str(getattr(args.eval_strategy, "value", args.eval_strategy))
    if strategy == "no":
        return int(args.do_eval)
    if strategy == "epoch":
        return steps // steps_an_epoch + 1
    interval = args.eval_steps if args.eval_steps >= 1 else math.ceil(steps * args.eval_steps)
    return int(steps // interval) + 1


def _count_all_evaluations(
    sizes: ModelSizes, dataset: Any, settings: Mapping[str, Any], args: Any, plan: AccelerationPlan, count: int
) -> float:
    needs_logits = settings.get("compute_accuracy") or settings.get("predict_with_generate")
    used = AccelerationPlan() if needs_logits else plan
    operations = 0.0
    for part in dataset.values() if isinstance(dataset, dict) else [dataset]:
        shapes = read_tokens(part).shapes
        if len(shapes):
            batches = make_batches(shapes, args.per_device_eval_batch_size, "sequential", 0)
            operations += _count_run(sizes, batches, used, count, is_training=False)
    return operations


def summarise_estimate(estimate: Estimate) -> str:
    """Return the estimate as a sentence."""
    free = f" of {estimate.free_bytes / _GIB:.1f}" if estimate.free_bytes else ""
    warning = "" if fits_memory(estimate) else "; that is more than is available"
    evaluation = f", {format_seconds(estimate.evaluation_time_s)} for evaluation" if estimate.evaluation_time_s else ""
    return (
        f"Estimate: {format_seconds(estimate.train_time_s)} for {estimate.steps} steps{evaluation}, "
        f"{estimate.memory.peak / _GIB:.1f}{free} GiB{warning}."
    )


def fits_memory(estimate: Estimate) -> bool:
    """Return whether the peak fits into the available memory, or that is unknown."""
    return not estimate.free_bytes or estimate.memory.peak <= estimate.free_bytes


def compare_with_run(estimate: Mapping[str, Any], card: Mapping[str, Any]) -> dict[str, dict[str, float]] | None:
    """Return estimated and actual figures for the steps that ran; None where none ran."""
    speed, memory = card.get("speed"), card.get("memory")
    if not speed or not memory or not estimate["steps"]:
        return None
    expected_s = estimate["train_time_s"] * speed["steps"] / estimate["steps"]
    return {
        "train_time_s": {"estimated": round(expected_s, 3), "happened": speed["train_time_s"]},
        "steps_per_s": {
            "estimated": round(speed["steps"] / expected_s, 4), "happened": speed["steps_per_s"],
        },
        "peak_bytes": {
            "estimated": estimate["memory"]["peak"],
            "happened": read_device_peak(memory),
        },
    }  # fmt: skip


def summarise_comparison(compared: Mapping[str, Mapping[str, float]]) -> str:
    """Return the comparison as a sentence."""
    time, peak = compared["train_time_s"], compared["peak_bytes"]
    return (
        f"Estimated {format_seconds(time['estimated'])} of steps and {peak['estimated'] / _GIB:.1f} GiB; "
        f"it took {format_seconds(time['happened'])} and {peak['happened'] / _GIB:.1f} GiB."
    )
