"""Says how much memory a training run will need, part by part, before it is there.

Weights, gradients and optimizer states are counted; activations are what a layer of the model's kind was seen to keep
(`layer_probe`), for the largest batch. Not covered: the room that an allocator loses between pieces, models spread
over several devices, and optimizers that keep anything else than averages.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sentifactory.proc_tables import read_kilobytes
from sentifactory.training.acceleration import Way
from sentifactory.training.layer_probe import LayerProbe
from sentifactory.training.operations import Batches, ModelSizes

# Of one logit in float32: itself, its logarithm of the softmax, its gradient; in half precision copies of two of them.
_LOGIT_BYTES, _HALF_LOGIT_BYTES = 12, 16
# bitsandbytes packs blocks of 64 weights with a float32 scale each, or with a byte and a scale for 256 of these.
_BLOCK, _OUTER_BLOCK = 64, 256


@dataclass(frozen=True, slots=True)
class MemoryNeeds:
    """Bytes of each part at its largest.

    Attributes:
        weights: all of them, in the types in which they are held.
        gradients: of the weights that train.
        optimizer: what the optimizer keeps for them.
        activations: what the layers keep for the backward pass of the largest batch.
        logits: of that batch, with what the loss makes of them.
        process: what the process itself holds (programs, data) on a CPU; 0 on a GPU.
        is_accumulated: whether gradients are there while a batch goes forward.
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
        """The most that is held at one time: gradients come as activations go."""
        forward = self.activations + self.logits + self.gradients * self.is_accumulated
        return self.process + self.weights + self.optimizer + max(forward, self.gradients)


def estimate_memory(
    model: Any,
    sizes: ModelSizes,
    batches: Batches,
    way: Way,
    probe: LayerProbe,
    settings: Mapping[str, Any],
    args: Any,
    held_bytes: int,
) -> MemoryNeeds:
    """Return what a run needs.

    Args:
        model: with the weights that train marked; they may stand on the device `meta`.
        sizes: of the model.
        batches: of an epoch.
        way: which accelerations are on.
        probe: what one layer was seen to keep.
        settings: what LLaMA-Factory gets.
        args: its training arguments.
        held_bytes: what the process held before anything was measured.
    """
    trained = sum(value.numel() * value.element_size() for value in model.parameters() if value.requires_grad)
    weights = count_weight_bytes(model, settings)
    is_half = bool(args.bf16 or args.fp16)
    activations, rows = _count_activations(sizes, batches, way, probe, 2 if is_half else 4)
    held = activations + rows * sizes.vocabulary * (_HALF_LOGIT_BYTES if is_half else _LOGIT_BYTES)
    largest = int(held.argmax())
    is_loaded = not any(value.is_meta for value in model.parameters())
    return MemoryNeeds(
        weights=weights,
        gradients=trained,
        optimizer=int(trained * count_optimizer_copies(str(getattr(args.optim, "value", args.optim)))),
        activations=int(activations[largest]),
        logits=int(held[largest] - activations[largest]),
        process=max(0, held_bytes - weights * is_loaded) if args.device.type == "cpu" else 0,
        is_accumulated=args.gradient_accumulation_steps > 1,
    )


def count_weight_bytes(model: Any, settings: Mapping[str, Any]) -> int:
    """Return the bytes of all weights; those that a recipe will have packed are counted packed."""
    from torch import nn

    total = sum(value.numel() * value.element_size() for value in model.parameters())
    bits = settings.get("quantization_bit")
    if not bits or not any(value.is_meta for value in model.parameters()):
        return total
    scales = 4 / _BLOCK
    if settings.get("double_quantization", True):
        scales = (1 + 4 / _OUTER_BLOCK) / _BLOCK
    for name, module in model.named_modules():
        # Not the vocabulary projection, and not an adapter's own maps.
        if isinstance(module, nn.Linear) and ".layers." in name and ".lora_" not in name:
            weight = module.weight
            total += int(weight.numel() * (bits / 8 + (scales if bits == 4 else 0) - weight.element_size()))
    return total


def count_optimizer_copies(name: str) -> float:
    """Return how many times the bytes of the trained weights an optimizer keeps.

    Example:
        >>> count_optimizer_copies("adamw_torch_fused"), count_optimizer_copies("adamw_8bit")
        (2.0, 0.5)
    """
    if name in ("adafactor", "sgd"):
        return 0.0
    copies = 1.0 if name.startswith(("lion", "paged_lion", "adagrad", "rmsprop")) else 2.0
    return copies / 4 if "8bit" in name else copies


def _count_activations(
    sizes: ModelSizes, batches: Batches, way: Way, probe: LayerProbe, item_bytes: int
) -> tuple[Any, Any]:
    """Return for each batch the bytes that layers keep, and how many rows the vocabulary projection has."""
    rest = batches.ends - way.prefix
    tokens = batches.samples * rest + way.prefix if way.is_fast else batches.samples * batches.widths
    first = way.frozen if way.is_fast else sizes.first_trained
    trained = sizes.layers[first:]
    whole = probe.kept_bytes + probe.kept_bytes_per_token * tokens
    if way.is_fast:
        # Every sample gets a copy of the prefix's keys and values, for every head.
        whole = whole + batches.samples * way.prefix * 2 * sizes.attention * item_bytes
    inputs = tokens * sizes.hidden * item_bytes
    kept: Any = sum(inputs if layer.is_checkpointed else whole for layer in trained[:-1])
    if any(layer.is_checkpointed for layer in trained):
        kept = kept + whole  # the layer that is computed a second time
    if way.is_fast:
        # The last layer: keys and values of all, the rest at the answers alone.
        answers = batches.samples * batches.most_answers
        share = (sizes.layers[-1].key_value[0] + sizes.layers[-1].query[0]) / sizes.layers[-1].all[0]
        kept = kept + share * whole + probe.kept_bytes_per_token * answers
    elif trained:
        kept = kept + (inputs if trained[-1].is_checkpointed else whole)
    rows = batches.answers + 1 if way.is_answer_only else batches.samples * batches.widths
    return kept, rows


def read_held_memory() -> int:
    """Return the bytes that this process holds now; 0 where the system does not tell."""
    return read_kilobytes("/proc/self/status", "VmRSS:")


def read_free_memory(device: Any) -> int:
    """Return the bytes that this process could hold on a device, what it holds already included; 0 if not known."""
    if device.type == "cuda":
        torch = sys.modules["torch"]
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return read_kilobytes("/proc/meminfo", "MemAvailable:") + read_held_memory()
