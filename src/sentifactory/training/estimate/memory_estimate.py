"""Estimates the peak memory of a training run by component.

Weights, gradients and optimizer states are counted; activations are extrapolated from one layer (`layer_probe`) to the
largest batch. Not covered: memory fragmentation, models on several devices, and optimizers with states other than
averages of the gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sentifactory.training.acceleration.accelerations import AccelerationPlan
from sentifactory.training.estimate.layer_probe import LayerProbe
from sentifactory.training.estimate.operation_count import Batches, ModelSizes

# For each logit in float32: the logit, its log-softmax and its gradient; in half precision also copies of two of them.
_LOGIT_BYTES, _HALF_LOGIT_BYTES = 12, 16
_HALF_BYTES = 2
# bitsandbytes stores a float32 scale per 64 weights; with double quantization a byte, and a float32 per 256 bytes.
_BLOCK, _OUTER_BLOCK = 64, 256


@dataclass(frozen=True, slots=True)
class MemoryNeeds:
    """Bytes of each component at its largest.

    Attributes:
        weights: of all weights, in their stored types.
        gradients: of the trainable weights.
        optimizer: the optimizer's states.
        activations: saved for the backward pass of the largest batch.
        logits: of that batch, with the intermediate results of the loss.
        process: the process itself (programs, data) on a CPU; 0 on a GPU.
        is_accumulated: whether gradients of earlier batches exist during the forward pass.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    process: int
    is_accumulated: bool

    @property
    def peak(self) -> int:
        """Peak bytes: gradients are allocated while activations are freed."""
        forward = self.activations + self.logits + self.gradients * self.is_accumulated
        return self.process + self.weights + self.optimizer + max(forward, self.gradients)


def estimate_memory(
    model: Any,
    sizes: ModelSizes,
    batches: Batches,
    plan: AccelerationPlan,
    probe: LayerProbe,
    settings: Mapping[str, Any],
    args: Any,
    held_bytes: int,
) -> MemoryNeeds:
    """Return the memory of a run by component.

    Args:
        model: with `requires_grad` set; the weights may be on the device `meta`.
        sizes: of the model.
        batches: of one epoch.
        plan: the accelerations in use.
        probe: the measurements of one layer.
        settings: the settings passed to LLaMA-Factory.
        args: its training arguments.
        held_bytes: memory of the process before the measurement, with all of its weights.
    """
    trained = sum(value.numel() * value.element_size() for value in model.parameters() if value.requires_grad)
    weights = count_weight_bytes(model, settings)
    is_half = bool(args.bf16 or args.fp16)
    activations, rows = _count_activations(sizes, batches, plan, probe, _HALF_BYTES if is_half else 4)
    held = activations + rows * sizes.vocabulary * (_HALF_LOGIT_BYTES if is_half else _LOGIT_BYTES)
    largest = int(held.argmax())
    is_loaded = not any(value.is_meta for value in model.parameters())
    return MemoryNeeds(
        weights=weights,
        gradients=trained,
        optimizer=int(trained * count_optimizer_copies(str(getattr(args.optim, "value", args.optim)))),
        activations=int(activations[largest]),
        logits=int(held[largest] - activations[largest]),
        process=max(0, held_bytes - weights * is_loaded) if args.device.type in ("cpu", "mps") else 0,
        is_accumulated=args.gradient_accumulation_steps > 1,
    )


def count_weight_bytes(model: Any, settings: Mapping[str, Any]) -> int:
    """Return the bytes of all weights, packed where the recipe quantizes them."""
    from torch import nn

    total = sum(value.numel() * value.element_size() for value in model.parameters())
    bits = settings.get("quantization_bit")
    if not bits or not any(value.is_meta for value in model.parameters()):
        return total
    scales = 4 / _BLOCK
    if settings.get("double_quantization", True):
        scales = (1 + 4 / _OUTER_BLOCK) / _BLOCK
    for name, module in model.named_modules():
        # Neither the vocabulary projection nor an adapter is quantized.
        if isinstance(module, nn.Linear) and ".layers." in name and ".lora_" not in name:
            weight = module.weight
            total += int(weight.numel() * (bits / 8 + (scales if bits == 4 else 0) - weight.element_size()))
    return total


def count_optimizer_copies(name: str) -> float:
    """Return the size of an optimizer's states as a multiple of the trainable weights.

    Example:
        >>> count_optimizer_copies("adamw_torch_fused"), count_optimizer_copies("adamw_8bit")
        (2.0, 0.5)
    """
    if name in ("adafactor", "sgd"):
        return 0.0
    copies = 1.0 if name.startswith(("lion", "paged_lion", "adagrad", "rmsprop")) else 2.0
    return copies / 4 if "8bit" in name else copies


def _count_activations(
    sizes: ModelSizes, batches: Batches, plan: AccelerationPlan, probe: LayerProbe, item_bytes: int
) -> tuple[Any, Any]:
    """Return for each batch the bytes of activations, and the number of rows of the vocabulary projection."""
    rest = batches.ends - plan.prefix
    tokens = batches.samples * rest + plan.prefix if plan.is_fast else batches.samples * batches.widths
    first = plan.frozen if plan.is_fast else sizes.first_trained
    trained = sizes.layers[first:]
    whole = probe.kept_bytes + probe.kept_bytes_per_token * tokens
    if plan.is_fast:
        # Every sample gets a copy of the prefix's keys and values for each head.
        whole = whole + batches.samples * plan.prefix * 2 * sizes.attention * item_bytes
    inputs = tokens * sizes.hidden * item_bytes
    kept: Any = sum(inputs if layer.is_checkpointed else whole for layer in trained[:-1])
    if any(layer.is_checkpointed for layer in trained):
        kept = kept + whole  # the layer that is being recomputed
        if item_bytes == _HALF_BYTES:
            # Autocast keeps the rounded weights of all these layers until the forward pass ends.
            kept = kept + sum(layer.all[1] for layer in trained[:-1] if layer.is_checkpointed) * _HALF_BYTES
    if plan.is_fast:
        # The last layer: keys and values of all tokens, everything else only at answer positions.
        answers = batches.samples * batches.most_answers
        share = (sizes.layers[-1].key_value[0] + sizes.layers[-1].query[0]) / sizes.layers[-1].all[0]
        kept = kept + share * whole + probe.kept_bytes_per_token * answers
    elif trained:
        kept = kept + (inputs if trained[-1].is_checkpointed else whole)
    rows = batches.answers + 1 if plan.is_answer_only else batches.samples * batches.widths
    return kept, rows
