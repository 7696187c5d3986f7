"""Measures one decoder layer of a model on this machine: how fast it trains, and how much memory its activations take.

The rate of a large matrix product would be too optimistic, because a small model spends much of a step between the
products. The layer has the class and size of the model's layers with constant weights, so no checkpoint is loaded. It
takes about a second, and longer where half precision is emulated. Nothing here draws random numbers, so a run that
follows is the same with and without it. Not covered: weights packed to 4 or 8 bits, which are measured unpacked.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sentifactory.training.acceleration.answer_logits import find_causal_model

_ROUNDS = 3
_ENOUGH_S = 8.0  # a run that takes so long needs no warm-up
# Tokens in one pass: enough to saturate the device, few enough to be quick.
_TOKENS = {"cpu": 512, "cuda": 4096}
_CONSTANT = 0.01


@dataclass(frozen=True, slots=True)
class LayerProbe:
    """The measurements of one layer.

    Attributes:
        operations_per_s: in a forward and backward pass through the layer.
        optimizer_s_per_weight: time of an AdamW step for each trainable weight.
        kept_bytes: saved for the backward pass independent of the batch (weights cast to half precision).
        kept_bytes_per_token: saved for the backward pass for each token.
    """

    operations_per_s: float
    optimizer_s_per_weight: float
    kept_bytes: float
    kept_bytes_per_token: float


def probe_layer(
    model: Any, device: Any, dtype: Any, length: int, count_operations: Callable[[int, int], float]
) -> LayerProbe:
    """Measure one layer.

    Args:
        model: a causal language model, whose weights may be on the device `meta`.
        device: of the run.
        dtype: of the computation; half precision runs under autocast.
        length: tokens of a typical sample.
        count_operations: returns the operations of a pass over (samples, tokens per sample).
    """
    import torch

    layer = _build_decoder(find_causal_model(model), device)
    most = _TOKENS.get(device.type, _TOKENS["cuda"])
    length = min(max(length, 8), most)
    samples = max(2, most // length)
    hidden_size = layer.config.hidden_size

    def pass_through(count: int) -> Any:
        states = torch.full((count, length, hidden_size), _CONSTANT, device=device, requires_grad=True)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return layer(inputs_embeds=states, use_cache=False).last_hidden_state

    half, whole = (_measure_kept(layer, partial(pass_through, count)) for count in (samples // 2, samples))
    per_token = (whole - half) / ((samples - samples // 2) * length)

    def train() -> None:
        pass_through(samples).sum().backward()

    seconds = _time(train, device)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.0, fused=True)
    optimizer_s = _time(optimizer.step, device)
    weights = sum(value.numel() for value in layer.parameters())
    return LayerProbe(
        count_operations(samples, length) / seconds,
        optimizer_s / weights,
        max(0.0, whole - per_token * samples * length),
        per_token,
    )


def _build_decoder(causal: Any, device: Any) -> Any:
    """Return a decoder of the model's class with one layer and a vocabulary of eight."""
    import torch

    decoder = getattr(causal, causal.base_model_prefix)
    config = copy.deepcopy(decoder.config)
    config.num_hidden_layers = 1
    config.vocab_size, config.pad_token_id = 8, None
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[-1:]
    with torch.device("meta"):
        built = type(decoder)(config)
    built = built.to(torch.float32).to_empty(device=device).eval()
    with torch.no_grad():
        for value in (*built.parameters(), *built.buffers()):
            value.fill_(_CONSTANT)
    return built.requires_grad_(True)


def _measure_kept(layer: Any, run: Callable[[], Any]) -> int:
    """Return the bytes of all tensors, except weights, that a forward pass saves for the backward pass."""
    import torch

    own = {value.untyped_storage().data_ptr() for value in (*layer.parameters(), *layer.buffers())}
    kept: dict[int, int] = {}
    alive = []

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # so that its memory is not reused by another tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(kept.values())


def _time(run: Callable[[], Any], device: Any) -> float:
    """Return the median seconds of a few runs after a warm-up run, or those of fewer when they are slow."""
    import torch

    seconds = []
    for _ in range(_ROUNDS + 1):
        start_s = time.perf_counter()
        run()
        if device.type != "cpu":
            torch.get_device_module(device).synchronize()
        seconds.append(time.perf_counter() - start_s)
        if sum(seconds) > _ENOUGH_S:
            break
    return statistics.median(seconds[1:] or seconds)
