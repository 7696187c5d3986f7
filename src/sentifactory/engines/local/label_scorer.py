"""Computes log-probabilities of answer tokens with a transformers model, exactly and with little computation.

- The common prefix of all prompts is computed once; its KV cache is reused for every review.
- Prompts are padded on the right, where causal attention never looks, so that no mask is needed.
- Only the hidden states before answer tokens go through the vocabulary projection.

If labels have several tokens, a review takes one row per path in the answer tree.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from sentifactory.engines.answer_tokens import AnswerTree, EdgeScores, Path, count_common


class LabelScorer:
    """Scores the answers after prompts.

    Args:
        model: a causal language model of transformers.
        tree: of the answers.
        probe: token ids of the prompt with an empty review, to find the common prefix.
        padding: id of the padding token.
    """

    def __init__(self, model: Any, tree: AnswerTree, probe: Sequence[int], padding: int) -> None:
        self._model = model
        self._tree = tree
        self._probe = list(probe)
        self._padding = padding
        self._prefix: list[int] = []
        self._cache: Any = None
        self._needed: Any = None  # (rows, columns) of the hidden states to project, while a batch is under way
        decoder = getattr(model, model.base_model_prefix)
        self._hook = decoder.register_forward_hook(self._gather)

    def close(self) -> None:
        """Leave the model as it was before; may be called twice."""
        self._hook.remove()

    def share_prefix(self, prompts: Sequence[Sequence[int]]) -> int:
        """Compute the KV cache of the prompts' common prefix, and return its length in tokens."""
        import torch

        # Every row keeps at least one token of its own.
        n_shared = min(count_common([self._probe, *prompts]), min(map(len, prompts)) - 1)
        if n_shared == len(self._prefix):
            return n_shared
        self._prefix, self._cache = self._probe[:n_shared], None
        if n_shared:
            ids = torch.tensor([self._prefix], device=self._model.device)
            with torch.inference_mode():
                output = self._model(input_ids=ids, use_cache=True, logits_to_keep=1)
            self._cache = output.past_key_values
            if not can_repeat(self._cache):
                self._prefix, self._cache = [], None
        return len(self._prefix)

    def score(self, prompts: Sequence[Sequence[int]]) -> list[EdgeScores]:
        """Return, for each prompt, the log-probability of every token at every fork; call `share_prefix` first."""
        import torch

        start = len(self._prefix)
        rows: list[list[int]] = []
        wanted: list[tuple[int, Path]] = []  # (prompt, fork), in the order of the projected hidden states
        places: list[tuple[int, int]] = []  # (row, column) of each
        for number, prompt in enumerate(prompts):
            seen: set[Path] = set()
            for longest in self._tree.longest_paths:
                body = [*prompt[start:], *self._tree.lead, *longest]
                for depth in range(len(longest) + 1):
                    if (path := longest[:depth]) not in seen:
                        seen.add(path)
                        wanted.append((number, path))
                        places.append((len(rows), len(body) - 1 - len(longest) + depth))
                rows.append(body)
        width = max(map(len, rows))
        ids = [row + [self._padding] * (width - len(row)) for row in rows]
        with torch.inference_mode():
            logits = self._forward(torch.tensor(ids, device=self._model.device), places)  # (K, V)
            normalisers = logits.logsumexp(-1)  # (K,)
            found: list[dict[tuple[Path, int], float]] = [{} for _ in prompts]
            for place, (number, path) in enumerate(wanted):
                tokens = list(self._tree.forks[path])
                for token, value in zip(tokens, (logits[place, tokens] - normalisers[place]).tolist(), strict=True):
                    found[number][path, token] = value
        return list(found)

    def read_states(self, prompts: Sequence[Sequence[int]]) -> Any:
        """Return the hidden states after every layer, (L, B, H) in float32, at the token that the labels part after.

        `share_prefix` comes first. The states are those between the layers: the decoder's final norm is not applied.
        """
        import torch

        start = len(self._prefix)
        rows = [[*prompt[start:], *self._tree.lead] for prompt in prompts]
        width = max(map(len, rows))
        ids = torch.tensor([row + [self._padding] * (width - len(row)) for row in rows], device=self._model.device)
        places = (list(range(len(rows))), [len(row) - 1 for row in rows])
        found: list[Any] = []

        def keep(module: Any, args: tuple[Any, ...], output: Any) -> None:
            states = output[0] if isinstance(output, tuple) else output  # (B, T, H)
            found.append(states[places].float().cpu())

        decoder = getattr(self._model, self._model.base_model_prefix)
        hooks = [layer.register_forward_hook(keep) for layer in decoder.layers]
        cache = repeat_cache(self._cache, len(ids)) if self._cache is not None else None
        try:
            with torch.inference_mode():
                decoder(input_ids=ids, past_key_values=cache, use_cache=cache is not None)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(found)

    def _forward(self, ids: Any, places: Sequence[tuple[int, int]]) -> Any:
        """Return float32 logits (K, V) at K positions (row, column) of token ids (B, T)."""
        cache = repeat_cache(self._cache, len(ids)) if self._cache is not None else None
        rows, columns = zip(*places, strict=True)
        self._needed = (list(rows), list(columns))
        try:
            output = self._model(input_ids=ids, past_key_values=cache, use_cache=cache is not None)
        finally:
            self._needed = None
        return output.logits[0].float()

    def _gather(self, module: Any, args: tuple[Any, ...], output: Any) -> Any:
        """Replace hidden states (B, T, H) by the needed ones (1, K, H), before the model's own head."""
        if self._needed is None:
            return None
        output["last_hidden_state"] = output["last_hidden_state"][self._needed].unsqueeze(0)
        return output


def can_repeat(cache: Any) -> bool:
    """Return whether every layer of a cache holds keys and values, not recurrent states."""
    return all(getattr(layer, "keys", None) is not None for layer in getattr(cache, "layers", [None]))


def repeat_cache(cache: Any, n_rows: int) -> Any:
    """Return a cache of one row, (1, heads, T, size), expanded to a batch without copying.

    This is safe because a dynamic cache concatenates new keys into a new tensor.
    """
    repeated = copy.copy(cache)
    repeated.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in repeated.layers:
        layer.keys = layer.keys.expand(n_rows, -1, -1, -1)
        layer.values = layer.values.expand(n_rows, -1, -1, -1)
    return repeated
