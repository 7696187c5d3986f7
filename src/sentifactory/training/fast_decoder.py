"""The decoder's forward pass without what is computed again and again, with the same loss and gradients.

Three savings in one pass; each is exact because a causal decoder's position sees only itself and earlier positions:

- **frozen trunk**: embeddings and lower layers that do not train give the same hidden states for the same tokens. They
  are computed without gradients the first time a sample is met and taken from a cache from then on.
- **shared prefix**: prompts begin with the same P tokens. Their keys and values are computed once for the whole run in
  the trunk, and once a batch in the layers that train, where the gradients of all samples flow into them.
- **answer-only last layer**: after the last layer only positions that predict an answer token are read. All others
  give keys and values to it and no more; positions after the last answer token are not computed at all.

A batch for which this does not hold (another beginning, padding on the left, several reviews in a row) goes through
the stock forward pass. Needs `AnswerLoss`, which knows the answer positions. Not covered: dropout, packing, several
devices; `acceleration.py` decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sentifactory.training.answer_loss import AnswerLoss
from sentifactory.training.layer_pass import (
    KeysValues,
    compute_keys,
    join_past,
    run_layer,
    run_layer_on_rows,
)
from sentifactory.training.layer_views import LayerViews
from sentifactory.training.trunk_cache import TrunkCache

# Of the decoder's arguments, those that may be given when a batch takes the short way.
_PLAIN_ARGUMENTS = frozenset({"input_ids", "attention_mask", "num_items_in_batch"})


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What of a batch must be computed.

    Attributes:
        ids: (B, T) token ids on the CPU.
        ends: for each sample one more than its last position that predicts an answer token; P where there is none.
        samples: (K,) the sample of each position that predicts an answer token.
        positions: (K,) these positions.
    """

    ids: Any
    ends: list[int]
    samples: Any
    positions: Any


def plan_batch(input_ids: Any, mask: Any, rows: Any, prefix: Any) -> BatchPlan | None:
    """Return what of a batch must be computed, or None where the short way would not be exact.

    Args:
        input_ids: (B, T).
        mask: (B, T), 1 for tokens and 0 for padding, or None.
        rows: (K + 1,) flat positions that predict an answer token, and one more that predicts nothing.
        prefix: (P,) the shared beginning, on the CPU.
    """
    import torch

    ids, flat = input_ids.cpu(), rows[:-1].cpu()
    width, shared = ids.shape[1], len(prefix)
    samples, positions = flat // width, flat % width
    if len(flat) == 0 or int(positions.min()) < shared or not bool((ids[:, :shared] == prefix).all()):
        return None
    ends = torch.full((len(ids),), shared).scatter_reduce_(0, samples, positions + 1, "amax")
    if mask is not None:
        if mask.dim() != 2:
            return None
        real = mask.cpu().ne(0)
        # Tokens first, padding after them, and every position that is needed is a token.
        if bool((real[:, 1:] & ~real[:, :-1]).any()) or bool((real.sum(1) < ends).any()):
            return None
    return BatchPlan(ids, ends.tolist(), samples, positions)


class FastDecoder:
    """Takes the place of a decoder's forward function where that is exact.

    Args:
        causal: a `…ForCausalLM` of a proven class.
        answer_loss: the installed hooks, which know the positions that predict an answer token.
        prefix: the P token ids that all prompts begin with; may be empty.
        frozen_layers: number of lowest layers that do not train; 0 also when the embeddings train.
        cache: where the trunk's output is kept, or None to compute it each time.
    """

    def __init__(
        self, causal: Any, answer_loss: AnswerLoss, prefix: Sequence[int], frozen_layers: int, cache: TrunkCache | None
    ) -> None:
        import torch

        self._decoder = getattr(causal, causal.base_model_prefix)
        self._answer_loss = answer_loss
        self._prefix = torch.tensor(list(prefix), dtype=torch.long)
        self._layers = list(self._decoder.layers)
        # The last layer runs in another way, and is not worth keeping for those who train the head alone.
        self._frozen = min(frozen_layers, len(self._layers) - 1)
        self._trunk_prefix: tuple[list[KeysValues], Any] | None = None
        self.cache = cache
        self.fast_batches = self.stock_batches = 0
        self._stock_forward = self._decoder.forward
        self._decoder.forward = self._forward

    def close(self) -> None:
        """Do without the cache from now on."""
        if self.cache is not None:
            self.cache.close()
            self.cache = None

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPast

        plan = self._plan(args, kwargs)
        if plan is None:
            self.stock_batches += self._answer_loss.rows is not None
            return self._stock_forward(*args, **kwargs)
        self.fast_batches += 1
        self._answer_loss.take_rows()
        return BaseModelOutputWithPast(last_hidden_state=self._run(plan, kwargs["input_ids"]))

    def _plan(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> BatchPlan | None:
        given = {key for key, value in kwargs.items() if value is not None and value is not False}
        rows, ids = self._answer_loss.rows, kwargs.get("input_ids")
        if args or rows is None or ids is None or given - _PLAIN_ARGUMENTS:
            return None
        config = self._decoder.config
        if config.output_hidden_states or config.output_attentions:
            return None
        return plan_batch(ids, kwargs.get("attention_mask"), rows, self._prefix)

    def _run(self, plan: BatchPlan, input_ids: Any) -> Any:
        """Return the normed hidden states (1, K + 1, H) of the positions that predict an answer token."""
        shared = len(self._prefix)
        view = LayerViews(self._decoder, shared, max(plan.ends) - shared, input_ids.device)
        hidden = self._begin(plan, input_ids, view)
        beginning = self._begin_prefix(view) if shared else None
        past: KeysValues | None = None
        for index in range(self._frozen, len(self._layers) - 1):
            layer = self._layers[index]
            if beginning is not None:
                beginning, past = run_layer(layer, beginning, None, view.of_prefix(index, beginning))
            hidden, _ = run_layer(layer, hidden, past, view.of_rest(index, hidden))
        return self._decoder.norm(self._finish(plan, beginning, hidden, view))

    def _finish(self, plan: BatchPlan, beginning: Any, hidden: Any, view: LayerViews) -> Any:
        """Run the last layer at the answer positions; return (1, K + 1, H), of which the last row predicts nothing."""
        import torch

        index, device = len(self._layers) - 1, hidden.device
        layer = self._layers[index]
        past = None if beginning is None else compute_keys(layer, beginning, view.of_prefix(index, beginning))
        complete = join_past(past, compute_keys(layer, hidden, view.of_rest(index, hidden)))
        counts = torch.bincount(plan.samples, minlength=len(plan.ends))
        first = counts.cumsum(0) - counts
        slots = torch.arange(len(plan.samples)) - first[plan.samples]
        positions = torch.full((len(plan.ends), int(counts.max())), view.shared)
        positions[plan.samples, slots] = plan.positions
        samples, slots, positions = plan.samples.to(device), slots.to(device), positions.to(device)
        rows = torch.take_along_dim(hidden, (positions - view.shared).unsqueeze(-1), dim=1)
        output = run_layer_on_rows(layer, rows, complete, view.of_rows(index, rows, positions))
        chosen = output[samples, slots]
        return torch.cat([chosen, chosen[-1:].detach()]).unsqueeze(0)

    def _begin(self, plan: BatchPlan, input_ids: Any, view: LayerViews) -> Any:
        """Return what goes into the first layer that trains, (B, S, H), for positions after the prefix."""
        import torch

        if not self._frozen:
            return self._decoder.embed_tokens(input_ids[:, view.shared : view.shared + view.length])
        keys = [_hash_ids(plan.ids[row, :end]) for row, end in enumerate(plan.ends)]
        lengths = [end - view.shared for end in plan.ends]
        missing = list(range(len(keys)))
        if self.cache is not None:
            states = self.cache.allocate(len(keys), view.length)
            missing = [row for row in missing if not self.cache.read(keys[row], states[row, : lengths[row]])]
        if not missing:
            return states.to(input_ids.device)
        with torch.no_grad():
            found = self._compute_trunk(input_ids[missing], view)
        if self.cache is None:
            return found
        states = states.to(found)
        states[missing] = found
        found = found.cpu()
        for place, row in enumerate(missing):
            self.cache.write(keys[row], found[place, : lengths[row]])
        return states

    def _compute_trunk(self, input_ids: Any, view: LayerViews) -> Any:
        """Return the frozen layers' output (N, S, H) for positions after the prefix."""
        hidden = self._decoder.embed_tokens(input_ids[:, view.shared : view.shared + view.length])
        pasts = self._find_trunk_prefix(view)[0] if view.shared else [None] * self._frozen
        for index, past in enumerate(pasts):
            hidden, _ = run_layer(self._layers[index], hidden, past, view.of_rest(index, hidden))
        return hidden

    def _begin_prefix(self, view: LayerViews) -> Any:
        """Return what goes into the first layer that trains, (1, P, H), for the prefix."""
        if self._frozen:
            return self._find_trunk_prefix(view)[1]
        return self._decoder.embed_tokens(self._prefix.to(view.device).unsqueeze(0))

    def _find_trunk_prefix(self, view: LayerViews) -> tuple[list[KeysValues], Any]:
        """Return keys and values of the prefix in each frozen layer, and its hidden states (1, P, H) after them."""
        import torch

        if self._trunk_prefix is None:
            pasts = []
            with torch.no_grad():
                hidden = self._decoder.embed_tokens(self._prefix.to(view.device).unsqueeze(0))
                for index in range(self._frozen):
                    hidden, past = run_layer(self._layers[index], hidden, None, view.of_prefix(index, hidden))
                    pasts.append(past)
            self._trunk_prefix = (pasts, hidden)
        return self._trunk_prefix


def _hash_ids(ids: Any) -> bytes:
    return hashlib.blake2b(ids.numpy().tobytes(), digest_size=16).digest()
