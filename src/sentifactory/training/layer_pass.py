"""Runs one decoder layer on a part of a sample: the shared beginning, what follows it, or the answer positions alone.

The layer's own forward function is called, with a stand-in for the key and value cache through which it asks for the
keys and values of earlier positions. Nothing of attention is written anew here, and gradients flow through the
stand-in: what many samples attend to gets the sum of their gradients.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NoReturn

KeysValues = tuple[Any, Any]  # each (1 or B, heads, positions, head size)


class _KeysKnownError(Exception):
    """Leaves a layer's forward function when its keys and values are known."""


class _Appending:
    """Puts the keys and values of earlier positions before those of this pass."""

    def __init__(self, past: KeysValues | None) -> None:
        self.own: KeysValues | None = None
        self._past = past

    def update(self, keys: Any, values: Any, *args: Any, **kwargs: Any) -> KeysValues:
        self.own = (keys, values)
        return join_past(self._past, self.own)


class _Stopping:
    """Ends the pass as soon as keys and values are there."""

    def __init__(self) -> None:
        self.own: KeysValues | None = None

    def update(self, keys: Any, values: Any, *args: Any, **kwargs: Any) -> NoReturn:
        self.own = (keys, values)
        raise _KeysKnownError


class _Given:
    """Answers with keys and values that are complete already."""

    def __init__(self, complete: KeysValues) -> None:
        self._complete = complete

    def update(self, keys: Any, values: Any, *args: Any, **kwargs: Any) -> KeysValues:
        return self._complete


def join_past(past: KeysValues | None, own: KeysValues) -> KeysValues:
    """Return keys and values of earlier positions (one for all samples) followed by each sample's own."""
    import torch

    if past is None:
        return own
    keys, values = (
        torch.cat([before.expand(now.shape[0], -1, -1, -1), now], dim=-2)
        for before, now in zip(past, own, strict=True)
    )
    return keys, values


def _call_layer(layer: Any, hidden: Any, cache: Any, view: dict[str, Any]) -> Any:
    """Call a layer past its own gradient checkpointing, which would drop the cache."""
    from torch import nn

    output = nn.Module.__call__(layer, hidden, past_key_values=cache, **view)
    return output[0] if isinstance(output, tuple) else output


def is_checkpointed(layer: Any) -> bool:
    """Return whether stock training would compute this layer a second time in the backward pass to save memory."""
    import torch

    wants = getattr(layer, "gradient_checkpointing", False) and layer.training and torch.is_grad_enabled()
    return bool(wants) and any(value.requires_grad for value in layer.parameters())


def run_layer(layer: Any, hidden: Any, past: KeysValues | None, view: dict[str, Any]) -> tuple[Any, KeysValues]:
    """Run a layer on positions that follow `past`.

    Args:
        layer: a decoder layer.
        hidden: (B, S, H).
        past: keys and values of the positions before, or None.
        view: the layer's `attention_mask`, `position_embeddings` and `position_ids`.

    Returns:
        The new hidden states (B, S, H), and the keys and values of these S positions.
    """

    def run(states: Any, *before: Any) -> tuple[Any, Any, Any]:
        cache = _Appending((before[0], before[1]) if before else None)
        output = _call_layer(layer, states, cache, view)
        assert cache.own is not None  # noqa: S101  (every proven layer asks its cache)
        return output, *cache.own

    inputs = (hidden, *(past or ()))
    if is_checkpointed(layer):
        from torch.utils.checkpoint import checkpoint

        output, keys, values = checkpoint(run, *inputs, use_reentrant=False)
    else:
        output, keys, values = run(*inputs)
    return output, (keys, values)


def compute_keys(layer: Any, hidden: Any, view: dict[str, Any]) -> KeysValues:
    """Return the keys and values that a layer has for these positions, and compute nothing after them."""
    cache = _Stopping()
    with suppress(_KeysKnownError):
        _call_layer(layer, hidden, cache, view)
    assert cache.own is not None  # noqa: S101  (every proven layer asks its cache)
    return cache.own


def run_layer_on_rows(layer: Any, hidden: Any, complete: KeysValues, view: dict[str, Any]) -> Any:
    """Run a layer for some positions (B, A, H) that attend to keys and values which are complete already."""
    return _call_layer(layer, hidden, _Given(complete), view)
