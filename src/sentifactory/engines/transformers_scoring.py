"""Log-probabilities of answer tokens from a transformers model, with as little computing as is exact.

- What all prompts begin with is computed once; its keys and values stand before every review of a batch.
- Prompts are padded on the right: causal attention never looks there, so that no mask and no padding changes a result.
- Of all hidden states, only those after which an answer token may stand go through the vocabulary projection.

Where labels are several tokens long, a review takes a row for every path among the answers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from sentifactory.engines.answers import AnswerTree, EdgeScores, Path, count_common


class LabelScorer:
    """Scores the answers after prompts.

    Args:
        model: a causal language model of transformers.
        tree: where the answers part.
        probe: token ids of any prompt but a real one: what all share with it is the part that does not change.
        padding: a token id to pad with.
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
        decoder.register_forward_hook(self._gather)

    def share_prefix(self, prompts: Sequence[Sequence[int]]) -> int:
        """Compute what the prompts begin with, and return its length in tokens; kept until other prompts come."""
        import torch

        # Every row keeps a token of its own to begin with.
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
        """Return the log-probability of every token at every fork, after each prompt; `share_prefix` comes first."""
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

    def _forward(self, ids: Any, places: Sequence[tuple[int, int]]) -> Any:
        """Return float32 logits (K, V) at K places, (row, column), of token ids (B, T)."""
        cache = repeat_cache(self._cache, len(ids)) if self._cache is not None else None
        rows, columns = zip(*places, strict=True)
        self._needed = (list(rows), list(columns))
        try:
            output = self._model(input_ids=ids, past_key_values=cache, use_cache=cache is not None)
        finally:
            self._needed = None
        return output.logits[0].float()

    def _gather(self, module: Any, args: tuple[Any, ...], output: Any) -> Any:
        """Replace hidden states (B, T, H) by the needed ones (1, K, H); the model's own head does the rest."""
        if self._needed is None:
            return None
        output["last_hidden_state"] = output["last_hidden_state"][self._needed].unsqueeze(0)
        return output


def can_repeat(cache: Any) -> bool:
    """Return whether a cache holds plain keys and values in every layer (recurrent states would be something else)."""
    return all(getattr(layer, "keys", None) is not None for layer in getattr(cache, "layers", [None]))


def repeat_cache(cache: Any, n_rows: int) -> Any:
    """Return a cache for a batch that begins with what the cache of one row, (1, heads, T, size), holds.

    Nothing is copied: the layers of a dynamic cache join new keys to the old ones in a new tensor.
    """
    repeated = copy.copy(cache)
    repeated.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in repeated.layers:
        layer.keys = layer.keys.expand(n_rows, -1, -1, -1)
        layer.values = layer.values.expand(n_rows, -1, -1, -1)
    return repeated
