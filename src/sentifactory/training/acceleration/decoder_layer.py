"""Runs one decoder layer on a part of a sample: the shared prefix, what follows it, or only the answer positions.

The layer's own forward function is called with a substitute for the key-value cache, from which it takes the keys and
values of earlier positions. Attention itself is not reimplemented, and gradients flow through the substitute: the
shared prefix receives the sum of the gradients of all samples. `LayerInputs` builds the attention mask and the rotary
embeddings that each call needs.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NoReturn

KeysValues = tuple[Any, Any]  # each (1 or B, heads, positions, head size)


class _KeysKnownError(Exception):
    """Leaves a layer's forward function as soon as its keys and values are computed."""


class _AppendingCache:
    """Prepends the keys and values of earlier positions to those of this pass."""

    def __init__(self, past: KeysValues | None) -> None:
        self.own: KeysValues | None = None
        self._past = past

    def update(self, keys: Any, values: Any, *args: Any, **kwargs: Any) -> KeysValues:
        self.own = (keys, values)
        return join_past(self._past, self.own)


class _StoppingCache:
    """Ends the pass as soon as keys and values are computed."""

    def __init__(self) -> None:
        self.own: KeysValues | None = None

    def update(self, keys: Any, values: Any, *args: Any, **kwargs: Any) -> NoReturn:
        self.own = (keys, values)
        raise _KeysKnownError


class _FixedCache:
    """Returns complete keys and values that were computed before."""

    def __init__(self, complete: KeysValues) -> None:
        self._complete = complete

    def update(self, keys: Any, values: Any, *args: Any, **kwargs: Any) -> KeysValues:
        return self._complete


def join_past(past: KeysValues | None, own: KeysValues) -> KeysValues:
    """Return keys and values of earlier positions, shared by all samples, followed by each sample's own."""
    import torch

    if past is None:
        return own
    keys, values = (
        torch.cat([before.expand(now.shape[0], -1, -1, -1), now], dim=-2)
        for before, now in zip(past, own, strict=True)
    )
    return keys, values


def _call_layer(layer: Any, hidden: Any, cache: Any, arguments: dict[str, Any]) -> Any:
    """Call a layer without its own gradient checkpointing, which would drop the cache."""
    from torch import nn

    output = nn.Module.__call__(layer, hidden, past_key_values=cache, **arguments)
    return output[0] if isinstance(output, tuple) else output


def is_checkpointed(layer: Any) -> bool:
    """Return whether stock training recomputes this layer in the backward pass to save memory."""
    import torch

    wants = getattr(layer, "gradient_checkpointing", False) and layer.training and torch.is_grad_enabled()
    return bool(wants) and any(value.requires_grad for value in layer.parameters())


def run_layer(layer: Any, hidden: Any, past: KeysValues | None, arguments: dict[str, Any]) -> tuple[Any, KeysValues]:
    """Run a layer on positions that follow `past`.

    Args:
        layer: a decoder layer.
        hidden: (B, S, H).
        past: keys and values of the positions before, or None.
        arguments: the layer's `attention_mask`, `position_embeddings` and `position_ids`.

    Returns:
        The new hidden states (B, S, H), and the keys and values of these S positions.
    """

    def run(states: Any, *before: Any) -> tuple[Any, Any, Any]:
        cache = _AppendingCache((before[0], before[1]) if before else None)
        output = _call_layer(layer, states, cache, arguments)
        assert cache.own is not None  # noqa: S101  (every proven layer calls its cache)
        return output, *cache.own

    inputs = (hidden, *(past or ()))
    if is_checkpointed(layer):
        from torch.utils.checkpoint import checkpoint

        output, keys, values = checkpoint(run, *inputs, use_reentrant=False)
    else:
        output, keys, values = run(*inputs)
    return output, (keys, values)


def compute_keys_values(layer: Any, hidden: Any, arguments: dict[str, Any]) -> KeysValues:
    """Return the keys and values of a layer for these positions, computing nothing beyond them."""
    cache = _StoppingCache()
    with suppress(_KeysKnownError):
        _call_layer(layer, hidden, cache, arguments)
    assert cache.own is not None  # noqa: S101  (every proven layer calls its cache)
    return cache.own


def run_layer_on_rows(layer: Any, hidden: Any, complete: KeysValues, arguments: dict[str, Any]) -> Any:
    """Run a layer for some positions (B, A, H) that attend to complete keys and values."""
    return _call_layer(layer, hidden, _FixedCache(complete), arguments)


class LayerInputs:
    """Attention masks and rotary embeddings of one batch, built once for each kind of layer.

    Args:
        decoder: the decoder.
        shared: P, the length of the prefix.
        length: S, the number of positions computed after it.
        device: where the batch is.
    """

    def __init__(self, decoder: Any, shared: int, length: int, device: Any) -> None:
        import torch

        self.shared, self.length, self.device = shared, length, device
        self._decoder = decoder
        self._config = decoder.config
        self._positions = torch.arange(shared + length, device=device)
        self._cached: dict[Any, dict[str, Any]] = {}

    def for_prefix(self, index: int, hidden: Any) -> dict[str, Any]:
        """Return the arguments of layer `index` for the prefix, hidden (1, P, H)."""
        positions = self._positions[: self.shared]
        return self._make("prefix", index, hidden, positions.unsqueeze(0), positions)

    def for_rest(self, index: int, hidden: Any) -> dict[str, Any]:
        """Return the arguments of layer `index` for the positions after the prefix, hidden (B, S, H)."""
        return self._make("rest", index, hidden, self._positions[self.shared :].unsqueeze(0), self._positions)

    def for_rows(self, index: int, hidden: Any, positions: Any) -> dict[str, Any]:
        """Return the arguments of layer `index` for some positions (B, A)."""
        return self._make("rows", index, hidden, positions, self._positions)

    def _make(self, part: str, index: int, hidden: Any, positions: Any, key_positions: Any) -> dict[str, Any]:
        kinds = getattr(self._config, "layer_types", None)
        kind = kinds[index] if kinds else None
        key = (part, kind, hidden.dtype)
        if key not in self._cached:
            # Only Gemma 3 has separate rotary embeddings for each kind of layer.
            by_kind = (kind,) if type(self._decoder).__name__.startswith("Gemma3") else ()
            self._cached[key] = {
                "attention_mask": self._make_mask(kind, hidden, positions, key_positions),
                "position_embeddings": self._decoder.rotary_emb(hidden, positions, *by_kind),
                "position_ids": positions,
            }
        return self._cached[key]

    def _make_mask(self, kind: str | None, hidden: Any, positions: Any, key_positions: Any) -> Any:
        """Return the mask (B or 1, 1, Q, K): positions attend to themselves and earlier ones within the window.

        Padding is on the right, where no position that is used attends to it, so it needs no mask.
        """
        import torch

        # Without layer types, a window in the configuration applies to every layer.
        window = getattr(self._config, "sliding_window", None) if kind in (None, "sliding_attention") else None
        is_sdpa = self._config._attn_implementation == "sdpa"
        is_square = positions.shape == (1, len(key_positions))
        if is_sdpa and is_square and (window is None or len(key_positions) <= window):
            return None  # the kernel's own causal mask
        distance = positions.unsqueeze(-1) - key_positions
        seen = distance >= 0
        if window is not None:
            seen = seen & (distance < window)
        seen = seen.unsqueeze(1)
        if is_sdpa:
            return seen
        return torch.zeros(seen.shape, dtype=hidden.dtype, device=hidden.device).masked_fill_(
            ~seen, torch.finfo(hidden.dtype).min
        )
