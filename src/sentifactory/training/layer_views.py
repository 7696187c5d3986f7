"""What a decoder layer must be told about positions: which keys each position sees, and its rotary embedding."""

from __future__ import annotations

from typing import Any


class LayerViews:
    """Masks and rotary position embeddings of one batch, made once for each kind of layer.

    Args:
        decoder: the decoder.
        shared: P, the length of the prefix.
        length: S, the positions after it that are computed.
        device: where the batch is.
    """

    def __init__(self, decoder: Any, shared: int, length: int, device: Any) -> None:
        import torch

        self.shared, self.length, self.device = shared, length, device
        self._decoder = decoder
        self._config = decoder.config
        self._places = torch.arange(shared + length, device=device)
        self._made: dict[Any, dict[str, Any]] = {}

    def of_prefix(self, index: int, hidden: Any) -> dict[str, Any]:
        """Return the arguments of layer `index` for the prefix, hidden (1, P, H)."""
        places = self._places[: self.shared]
        return self._make("prefix", index, hidden, places.unsqueeze(0), places)

    def of_rest(self, index: int, hidden: Any) -> dict[str, Any]:
        """Return the arguments of layer `index` for the positions after the prefix, hidden (B, S, H)."""
        return self._make("rest", index, hidden, self._places[self.shared :].unsqueeze(0), self._places)

    def of_rows(self, index: int, hidden: Any, positions: Any) -> dict[str, Any]:
        """Return the arguments of layer `index` for some positions (B, A) that see all before them."""
        return self._make("rows", index, hidden, positions, self._places)

    def _make(self, part: str, index: int, hidden: Any, positions: Any, key_places: Any) -> dict[str, Any]:
        kinds = getattr(self._config, "layer_types", None)
        kind = kinds[index] if kinds else None
        key = (part, kind, hidden.dtype)
        if key not in self._made:
            # Only Gemma 3 has rotary embeddings for each kind of layer.
            by_kind = (kind,) if type(self._decoder).__name__.startswith("Gemma3") else ()
            self._made[key] = {
                "attention_mask": self._make_mask(kind, hidden, positions, key_places),
                "position_embeddings": self._decoder.rotary_emb(hidden, positions, *by_kind),
                "position_ids": positions,
            }
        return self._made[key]

    def _make_mask(self, kind: str | None, hidden: Any, positions: Any, key_places: Any) -> Any:
        """Return which keys (B or 1, 1, Q, K) a position sees: itself and those before it, in its window if any.

        Padding stands at the end, where no position that is read sees it, so it needs no mask.
        """
        import torch

        # Without kinds of layers a window, where the configuration has one, is every layer's.
        window = getattr(self._config, "sliding_window", None) if kind in (None, "sliding_attention") else None
        is_sdpa = self._config._attn_implementation == "sdpa"
        is_square = positions.shape == (1, len(key_places))
        if is_sdpa and is_square and (window is None or len(key_places) <= window):
            return None  # the kernel's own causal mask
        distance = positions.unsqueeze(-1) - key_places
        seen = distance >= 0
        if window is not None:
            seen = seen & (distance < window)
        seen = seen.unsqueeze(1)
        if is_sdpa:
            return seen
        return torch.zeros(seen.shape, dtype=hidden.dtype, device=hidden.device).masked_fill_(
            ~seen, torch.finfo(hidden.dtype).min
        )
