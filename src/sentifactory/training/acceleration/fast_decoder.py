"""A forward pass of the decoder without redundant computation, with the same loss and gradients.

Three savings; each is exact because a position of a causal decoder attends only to itself and earlier positions:

- **frozen layers**: frozen embeddings and lower layers give the same hidden states for the same tokens. They are
  computed without gradients the first time a sample occurs, and read from a cache afterwards.
- **shared prefix**: all prompts begin with the same P tokens. Their keys and values are computed once per run in the
  frozen layers, and once per batch in the trainable layers, where they receive the gradients of all samples.
- **answer-only last layer**: only positions that predict an answer token are used after the last layer. For all others
  it computes keys and values only; positions after the last answer token are not computed, but for a few that round
  the size of the matrices.

A batch for which this does not hold (another prefix, padding on the left, several reviews in a row) runs through the
stock forward pass. Needs `AnswerLogits`, which knows the answer positions. Of several processes each computes its own
samples; the gradients of the prefix are those of its batch, and are averaged like all others. Not covered: dropout,
packing, weights that are split among devices; `accelerations.py` checks for them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sentifactory.training.acceleration.answer_logits import LENGTH_STEP, AnswerLogits, round_up
from sentifactory.training.acceleration.decoder_layer import (
    KeysValues,
    LayerInputs,
    compute_keys_values,
    join_past,
    run_layer,
    run_layer_on_rows,
)
from sentifactory.training.acceleration.frozen_layer_cache import FrozenLayerCache

# The decoder's arguments that the fast pass supports.
_SUPPORTED_ARGUMENTS = frozenset({"input_ids", "attention_mask", "num_items_in_batch"})


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Which positions of a batch must be computed.

    Attributes:
        ids: (B, T) token ids on the CPU.
        ends: for each sample, one past its last position that predicts an answer token; P where there is none.
        samples: (K,) the sample of each position that predicts an answer token.
        positions: (K,) these positions.
        idle: number of rows to add that predict nothing.
    """

    ids: Any
    ends: list[int]
    samples: Any
    positions: Any
    idle: int


def plan_batch(input_ids: Any, mask: Any, rows: Any, prefix: Any) -> BatchPlan | None:
    """Return which positions of a batch must be computed, or None where the fast pass would not be exact.

    Args:
        input_ids: (B, T).
        mask: (B, T), 1 for tokens and 0 for padding, or None.
        rows: (R,) K flat positions that predict an answer token, followed by the first sample's last position, which
            predicts nothing, once or several times.
        prefix: (P,) the shared token ids, on the CPU.
    """
    import torch

    ids, flat = input_ids.cpu(), rows.cpu()
    width, shared = ids.shape[1], len(prefix)
    flat = flat[flat != width - 1]
    samples, positions = flat // width, flat % width
    if len(flat) == 0 or int(positions.min()) < shared or not bool((ids[:, :shared] == prefix).all()):
        return None
    ends = torch.full((len(ids),), shared).scatter_reduce_(0, samples, positions + 1, "amax")
    if mask is not None:
        if mask.dim() != 2:
            return None
        real = mask.cpu().ne(0)
        # Padding is on the right, and every position that is needed is a token.
        if bool((real[:, 1:] & ~real[:, :-1]).any()) or bool((real.sum(1) < ends).any()):
            return None
    return BatchPlan(ids, ends.tolist(), samples, positions, idle=len(rows) - len(flat))


class FastDecoder:
    """Replaces a decoder's forward function where that is exact.

    Args:
        causal: a `…ForCausalLM` of a proven class.
        answer_logits: the installed hooks, which know the positions that predict an answer token.
        prefix: the P token ids that all prompts begin with; may be empty.
        frozen_layers: number of frozen lowest layers; 0 where the embeddings are trainable.
        cache: of the frozen layers' output, or None to compute it every time.
    """

    def __init__(
        self,
        causal: Any,
        answer_logits: AnswerLogits,
        prefix: Sequence[int],
        frozen_layers: int,
        cache: FrozenLayerCache | None,
    ) -> None:
        import torch

        self._decoder = getattr(causal, causal.base_model_prefix)
        self._answer_logits = answer_logits
        self._prefix = torch.tensor(list(prefix), dtype=torch.long)
        self._layers = list(self._decoder.layers)
        # The last layer runs for answer positions only, so its output is never cached, even when it is frozen.
        self._frozen = min(frozen_layers, len(self._layers) - 1)
        self._frozen_prefix: tuple[list[KeysValues], Any] | None = None
        self.cache = cache
        self.fast_batches = self.stock_batches = 0
        self._stock_forward = self._decoder.forward
        self._decoder.forward = self._forward

    def close(self) -> None:
        """Close the cache and stop using it."""
        if self.cache is not None:
            self.cache.close()
            self.cache = None

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPast

        plan = self._plan(args, kwargs)
        if plan is None:
            self.stock_batches += self._answer_logits.rows is not None
            return self._stock_forward(*args, **kwargs)
        self.fast_batches += 1
        self._answer_logits.take_rows()
        return BaseModelOutputWithPast(last_hidden_state=self._run(plan, kwargs["input_ids"]))

    def _plan(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> BatchPlan | None:
        given = {key for key, value in kwargs.items() if value is not None and value is not False}
        rows, ids = self._answer_logits.rows, kwargs.get("input_ids")
        if args or rows is None or ids is None or given - _SUPPORTED_ARGUMENTS:
            return None
        config = self._decoder.config
        if config.output_hidden_states or config.output_attentions:
            return None
        return plan_batch(ids, kwargs.get("attention_mask"), rows, self._prefix)

    def _run(self, plan: BatchPlan, input_ids: Any) -> Any:
        """Return the normed hidden states (1, R, H) of the positions that predict an answer token."""
        shared = len(self._prefix)
        length = min(round_up(max(plan.ends) - shared, LENGTH_STEP), input_ids.shape[1] - shared)
        inputs = LayerInputs(self._decoder, shared, length, input_ids.device)
        hidden = self._run_frozen_layers(plan, input_ids, inputs)
        prefix_states = self._run_frozen_prefix(inputs) if shared else None
        past: KeysValues | None = None
        for index in range(self._frozen, len(self._layers) - 1):
            layer = self._layers[index]
            if prefix_states is not None:
                prefix_states, past = run_layer(layer, prefix_states, None, inputs.for_prefix(index, prefix_states))
            hidden, _ = run_layer(layer, hidden, past, inputs.for_rest(index, hidden))
        return self._decoder.norm(self._run_last_layer(plan, prefix_states, hidden, inputs))

    def _run_last_layer(self, plan: BatchPlan, prefix_states: Any, hidden: Any, inputs: LayerInputs) -> Any:
        """Run the last layer at the answer positions; return (1, R, H), of which the last rows predict nothing."""
        import torch

        index, device = len(self._layers) - 1, hidden.device
        layer = self._layers[index]
        past = None
        if prefix_states is not None:
            past = compute_keys_values(layer, prefix_states, inputs.for_prefix(index, prefix_states))
        complete = join_past(past, compute_keys_values(layer, hidden, inputs.for_rest(index, hidden)))
        counts = torch.bincount(plan.samples, minlength=len(plan.ends))
        first = counts.cumsum(0) - counts
        slots = torch.arange(len(plan.samples)) - first[plan.samples]
        positions = torch.full((len(plan.ends), int(counts.max())), inputs.shared)
        positions[plan.samples, slots] = plan.positions
        samples, slots, positions = plan.samples.to(device), slots.to(device), positions.to(device)
        rows = torch.take_along_dim(hidden, (positions - inputs.shared).unsqueeze(-1), dim=1)
        output = run_layer_on_rows(layer, rows, complete, inputs.for_rows(index, rows, positions))
        chosen = output[samples, slots]
        return torch.cat([chosen, chosen[-1:].detach().expand(plan.idle, -1)]).unsqueeze(0)

    def _run_frozen_layers(self, plan: BatchPlan, input_ids: Any, inputs: LayerInputs) -> Any:
        """Return the input (B, S, H) of the first trainable layer for the positions after the prefix."""
        import torch

        if not self._frozen:
            return self._decoder.embed_tokens(input_ids[:, inputs.shared : inputs.shared + inputs.length])
        keys = [_hash_ids(plan.ids[row, :end]) for row, end in enumerate(plan.ends)]
        lengths = [end - inputs.shared for end in plan.ends]
        missing = list(range(len(keys)))
        if self.cache is not None:
            states = self.cache.allocate(len(keys), inputs.length)
            missing = [row for row in missing if not self.cache.read(keys[row], states[row, : lengths[row]])]
        if not missing:
            return states.to(input_ids.device)
        with torch.no_grad():
            found = self._compute_frozen_layers(input_ids[missing], inputs)
        if self.cache is None:
            return found
        states = states.to(found)
        states[missing] = found
        found = found.cpu()
        for place, row in enumerate(missing):
            self.cache.write(keys[row], found[place, : lengths[row]])
        return states

    def _compute_frozen_layers(self, input_ids: Any, inputs: LayerInputs) -> Any:
        """Return the frozen layers' output (N, S, H) for positions after the prefix."""
        hidden = self._decoder.embed_tokens(input_ids[:, inputs.shared : inputs.shared + inputs.length])
        pasts = self._compute_frozen_prefix(inputs)[0] if inputs.shared else [None] * self._frozen
        for index, past in enumerate(pasts):
            hidden, _ = run_layer(self._layers[index], hidden, past, inputs.for_rest(index, hidden))
        return hidden

    def _run_frozen_prefix(self, inputs: LayerInputs) -> Any:
        """Return the input (1, P, H) of the first trainable layer for the prefix."""
        if self._frozen:
            return self._compute_frozen_prefix(inputs)[1]
        return self._decoder.embed_tokens(self._prefix.to(inputs.device).unsqueeze(0))

    def _compute_frozen_prefix(self, inputs: LayerInputs) -> tuple[list[KeysValues], Any]:
        """Return keys and values of the prefix in each frozen layer, and its hidden states (1, P, H) after them."""
        import torch

        if self._frozen_prefix is None:
            pasts = []
            with torch.no_grad():
                hidden = self._decoder.embed_tokens(self._prefix.to(inputs.device).unsqueeze(0))
                for index in range(self._frozen):
                    hidden, past = run_layer(self._layers[index], hidden, None, inputs.for_prefix(index, hidden))
                    pasts.append(past)
            self._frozen_prefix = (pasts, hidden)
        return self._frozen_prefix


def _hash_ids(ids: Any) -> bytes:
    return hashlib.blake2b(ids.numpy().tobytes(), digest_size=16).digest()
