"""Says before a run how long it will take here and how much memory it will need, and afterwards how true that was.

Time is operations by the rate at which a layer of the model trains on this device, and the optimizer's by the weights
that train. Not covered: loading, tokenizing and saving; what an earlier run left in the trunk cache; streamed data;
models whose decoder is not a plain list of layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.quantities import format_seconds
from sentifactory.training.acceleration import Way
from sentifactory.training.answer_loss import find_causal_model
from sentifactory.training.layer_probe import LayerProbe, probe_layer
from sentifactory.training.memory_needs import MemoryNeeds, estimate_memory, read_free_memory, read_held_memory
from sentifactory.training.operations import (
    Batches,
    LayerSizes,
    ModelSizes,
    count_batches,
    make_batches,
    measure_model,
)
from sentifactory.training.run_card import read_device_peak
from sentifactory.training.shared_prefix import read_tokens

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take.

    Attributes:
        device: where it computes.
        reviews: samples of one epoch.
        tokens: of one epoch, padding left out.
        steps: optimizer steps of the whole run.
        epochs: passes through the data.
        operations: floating-point operations of all steps.
        stock_operations: those of the same steps without accelerations.
        evaluation_operations: those of all evaluations.
        operations_per_s: the rate that was measured.
        train_time_s: all steps.
        evaluation_time_s: all evaluations.
        memory: by parts.
        free_bytes: what could be held on the device; 0 where that is not known.
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
        """Return all of it, with the peak of the memory."""
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
        return "the tokenised data cannot be looked through"
    return None


def estimate_run(
    model: Any, dataset: Any, evaluation: Any, settings: Mapping[str, Any], args: Any, way: Way
) -> Estimate:
    """Return what a run will take on this machine.

    Args:
        model: as the trainer gets it; the weights may stand on the device `meta`.
        dataset: tokenised, to train on.
        evaluation: tokenised, to evaluate on, or None.
        settings: what LLaMA-Factory gets.
        args: its training arguments.
        way: which accelerations are on.

    Raises:
        ConfigError: when there is nothing to learn.
    """
    held_bytes = read_held_memory()
    sizes, tokens = measure_model(model), read_tokens(dataset)
    if len(tokens.shapes) == 0:
        raise ConfigError("No sample has an answer to learn", next_step="raise cutoff_len, or look at the data")
    order = "sequential" if settings.get("disable_shuffling") else str(args.train_sampling_strategy)
    batches = make_batches(tokens.shapes, args.per_device_train_batch_size, order, args.seed)
    batches_a_step = args.gradient_accumulation_steps
    steps_an_epoch = math.ceil(len(batches.samples) / batches_a_step)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps_an_epoch)
    epochs = steps / steps_an_epoch
    probe = _probe(model, sizes, tokens.shapes, args)
    operations = _count_run(sizes, batches, way, epochs, is_training=True)
    evaluations = _count_evaluations(args, steps, steps_an_epoch) if evaluation is not None else 0
    checked = _count_all_evaluations(sizes, evaluation, settings, args, way, evaluations) if evaluations else 0.0
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    return Estimate(
        device=str(args.device),
        reviews=len(tokens.shapes),
        tokens=int(tokens.shapes[:, 0].sum()),
        steps=steps,
        epochs=epochs,
        operations=operations,
        stock_operations=_count_run(sizes, batches, Way(), epochs, is_training=True),
        evaluation_operations=checked,
        operations_per_s=probe.operations_per_s,
        train_time_s=operations / probe.operations_per_s + steps * trained * probe.optimizer_s_per_weight,
        evaluation_time_s=checked / probe.operations_per_s,
        memory=estimate_memory(model, sizes, batches, way, probe, settings, args, held_bytes),
        free_bytes=read_free_memory(args.device),
    )


def _probe(model: Any, sizes: ModelSizes, shapes: Any, args: Any) -> LayerProbe:
    import torch

    total = sizes.layers[-1].all[0]
    lone = replace(
        sizes, layers=(LayerSizes((0, 0), (0, 0), (total, total), False),), first_trained=0, vocabulary=0
    )  # fmt: skip

    def count(samples: int, length: int) -> float:
        import numpy as np

        one = np.array([length])
        return count_batches(lone, Batches(np.array([samples]), one, one, one, one), Way(), is_training=True)[0]

    dtype = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else torch.float32
    return probe_layer(model, args.device, dtype, int(shapes[:, 0].mean()), count)


def _count_run(sizes: ModelSizes, batches: Batches, way: Way, passes: float, *, is_training: bool) -> float:
    """Return the operations of some passes through the data; the kept share of the trunk is computed in the first."""
    total, trunk = count_batches(sizes, batches, way, is_training=is_training)
    return total * passes - trunk * way.kept_share * max(0.0, passes - 1)


def _count_evaluations(args: Any, steps: int, steps_an_epoch: int) -> int:
    """Return how often the trainer will evaluate; LLaMA-Factory does so once more at the end."""
    strategy = str(getattr(args.eval_strategy, "value", args.eval_strategy))
    if strategy == "no":
        return int(args.do_eval)
    if strategy == "epoch":
        return steps // steps_an_epoch + 1
    interval = args.eval_steps if args.eval_steps >= 1 else math.ceil(steps * args.eval_steps)
    return int(steps // interval) + 1


def _count_all_evaluations(
    sizes: ModelSizes, dataset: Any, settings: Mapping[str, Any], args: Any, way: Way, count: int
) -> float:
    needs_logits = settings.get("compute_accuracy") or settings.get("predict_with_generate")
    used = Way() if needs_logits else way
    operations = 0.0
    for part in dataset.values() if isinstance(dataset, dict) else [dataset]:
        shapes = read_tokens(part).shapes
        if len(shapes):
            batches = make_batches(shapes, args.per_device_eval_batch_size, "sequential", 0)
            operations += _count_run(sizes, batches, used, count, is_training=False)
    return operations


def summarise_estimate(estimate: Estimate) -> str:
    """Return the estimate as a sentence, for before the run."""
    free = f" of {estimate.free_bytes / _GIB:.1f}" if estimate.free_bytes else ""
    warning = "" if fits(estimate) else "; that is more than there is"
    evaluation = f", {format_seconds(estimate.evaluation_time_s)} for evaluation" if estimate.evaluation_time_s else ""
    return (
        f"Estimate: {format_seconds(estimate.train_time_s)} for {estimate.steps} steps{evaluation}, "
        f"{estimate.memory.peak / _GIB:.1f}{free} GiB{warning}."
    )


def fits(estimate: Estimate) -> bool:
    """Return whether there is memory enough, as far as that is known."""
    return not estimate.free_bytes or estimate.memory.peak <= estimate.free_bytes


def compare_with_run(estimate: Mapping[str, Any], card: Mapping[str, Any]) -> dict[str, dict[str, float]] | None:
    """Return what was estimated and what happened side by side, for the steps that were made; None without any."""
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
    """Return the comparison as a sentence, for after the run."""
    time, peak = compared["train_time_s"], compared["peak_bytes"]
    return (
        f"Estimated {format_seconds(time['estimated'])} of steps and {peak['estimated'] / _GIB:.1f} GiB; "
        f"it took {format_seconds(time['happened'])} and {peak['happened'] / _GIB:.1f} GiB."
    )
