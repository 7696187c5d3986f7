"""Counts the floating-point operations of training steps from the shapes of model and data.

Counted are matrix products (linear layers, attention and the vocabulary projection), with two operations for each
multiplication. For W weights a forward pass takes 2 W per token, and a backward pass 2 W for the gradient of the input
and 2 W for that of the trainable weights (Kaplan et al., arXiv:2001.08361). Everything else (norms, activation
functions, the optimizer) is memory-bound and not counted. `torch.utils.flop_counter` gives the same totals (tests
compare them), but takes about a second per batch on weights without data, and there is one shape for each batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sentifactory.training.acceleration.accelerations import AccelerationPlan, count_frozen_layers
from sentifactory.training.acceleration.answer_logits import LENGTH_STEP, ROWS_STEP, find_causal_model, round_up

# LLaMA-Factory pads batches to a multiple of this.
PADDED_TO = 8
# The forward pass of attention is two matrix products; the backward pass of a fused kernel is five.
_ATTENTION_BACKWARD = 2.5


@dataclass(frozen=True, slots=True)
class LayerSizes:
    """Weights of the linear layers of one decoder layer, each as (total, trainable).

    Attributes:
        query: of the query projection.
        key_value: of the key and value projections.
        other: of all other linear layers.
        is_checkpointed: whether the backward pass recomputes the layer.
    """

    query: tuple[int, int]
    key_value: tuple[int, int]
    other: tuple[int, int]
    is_checkpointed: bool

    @property
    def all(self) -> tuple[int, int]:
        """(total, trainable) of all linear layers."""
        parts = (self.query, self.key_value, self.other)
        return sum(part[0] for part in parts), sum(part[1] for part in parts)


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """The sizes of a model that determine the operations of a step.

    Attributes:
        layers: of the decoder, lowest first.
        first_trained: index of the lowest layer that the backward pass reaches.
        attention: number of heads times head size.
        vocabulary: rows of the vocabulary projection.
        hidden: H.
        is_head_trained: whether the projection's weights are trainable (also where tied to the embeddings).
    """

    layers: tuple[LayerSizes, ...]
    first_trained: int
    attention: int
    vocabulary: int
    hidden: int
    is_head_trained: bool


@dataclass(frozen=True, slots=True)
class Batches:
    """The batches of one epoch; each attribute is an array (batches,).

    Attributes:
        samples: number of reviews.
        widths: tokens per review, with padding.
        ends: one past the last position of the batch that predicts an answer token.
        answers: number of positions that predict an answer token.
        most_answers: the largest such number of one review.
    """

    samples: Any
    widths: Any
    ends: Any
    answers: Any
    most_answers: Any


def measure_model(model: Any) -> ModelSizes:
    """Return the sizes of a causal language model, whose weights may be on the device `meta`."""
    causal = find_causal_model(model)
    decoder = getattr(causal, causal.base_model_prefix)
    config = decoder.config
    head = causal.get_output_embeddings()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return ModelSizes(
        tuple(_measure_layer(layer) for layer in decoder.layers),
        count_frozen_layers(causal),
        config.num_attention_heads * width,
        head.out_features,
        config.hidden_size,
        head.weight.requires_grad,
    )


def _measure_layer(layer: Any) -> LayerSizes:
    from torch import nn

    found = {"query": [0, 0], "key_value": [0, 0], "other": [0, 0]}
    for name, module in layer.named_modules():
        if isinstance(module, nn.Linear):
            kind = "query" if "q_proj" in name else "key_value" if ("k_proj" in name or "v_proj" in name) else "other"
            weights = module.in_features * module.out_features  # a packed weight has another shape
            found[kind][0] += weights
            found[kind][1] += weights * module.weight.requires_grad
    is_checkpointed = bool(getattr(layer, "gradient_checkpointing", False)) and any(
        value.requires_grad for value in layer.parameters()
    )
    query, key_value, other = ((sizes[0], sizes[1]) for sizes in found.values())
    return LayerSizes(query, key_value, other, is_checkpointed)


def make_batches(shapes: Any, size: int, order: str, seed: int) -> Batches:
    """Return the batches of an epoch; for a random order, those of one possible order.

    Args:
        shapes: (samples, 3), as `read_tokens` gives them.
        size: samples per batch; the last one may have fewer.
        order: `sequential`, `group_by_length` (taken as sorted) or `random`.
        seed: of the random order.
    """
    import numpy as np

    if order == "sequential":
        ordered = shapes
    elif order == "group_by_length":
        ordered = shapes[np.argsort(-shapes[:, 0], kind="stable")]
    else:
        ordered = shapes[np.random.default_rng(seed).permutation(len(shapes))]
    starts = np.arange(0, len(ordered), size)
    longest = np.maximum.reduceat(ordered, starts, axis=0)
    return Batches(
        samples=np.diff([*starts, len(ordered)]),
        widths=-(-longest[:, 0] // PADDED_TO) * PADDED_TO,
        ends=longest[:, 1],
        answers=np.add.reduceat(ordered[:, 2], starts),
        most_answers=longest[:, 2],
    )


def count_batches(
    sizes: ModelSizes, batches: Batches, plan: AccelerationPlan, *, is_training: bool
) -> tuple[float, float]:
    """Return the operations of an epoch, and how many of them a complete cache of the frozen layers saves.

    Args:
        sizes: of the model.
        batches: of the epoch.
        plan: the accelerations in use.
        is_training: False for evaluation, which has no backward pass.
    """
    frozen = sum(_count_frozen(sizes, batches, plan))
    layers = sum(
        _count_fast(sizes, batches, plan, is_training) if plan.is_fast else _count_stock(sizes, batches, is_training)
    )
    rows = round_up(batches.answers + 1, ROWS_STEP) if plan.is_answer_only else batches.samples * batches.widths
    passes = 1 + is_training * (1 + sizes.is_head_trained)
    head = 2.0 * sizes.hidden * sizes.vocabulary * passes * float(rows.sum())
    return frozen + layers + head, frozen


def _count_linear(weights: tuple[int, int], tokens: Any, is_training: bool, repeats: int = 0) -> float:
    """Return the operations of linear layers; `repeats` is 1 where the backward pass recomputes them."""
    total, trained = weights
    per_token = 2 * total * (1 + repeats) + (2 * total + 2 * trained) * is_training
    return float(per_token * tokens.sum())


def _count_attention(sizes: ModelSizes, pairs: Any, is_training: bool, repeats: int = 0) -> float:
    """Return the operations for pairs of query and key, including masked ones."""
    return float(4 * sizes.attention * (1 + repeats + _ATTENTION_BACKWARD * is_training) * pairs.sum())


def _count_stock(sizes: ModelSizes, batches: Batches, is_training: bool) -> Iterator[float]:
    """Yield the operations of each layer in the stock forward pass."""
    tokens, pairs = batches.samples * batches.widths, batches.samples * batches.widths**2
    for index, layer in enumerate(sizes.layers):
        trains = is_training and index >= sizes.first_trained
        repeats = int(trains and layer.is_checkpointed)
        yield _count_linear(layer.all, tokens, trains, repeats) + _count_attention(sizes, pairs, trains, repeats)


def _count_positions(batches: Batches, plan: AccelerationPlan) -> Any:
    """Return how many positions after the prefix the fast forward pass computes for each review of a batch."""
    return (batches.widths - plan.prefix).clip(max=round_up(batches.ends - plan.prefix, LENGTH_STEP))


def _count_frozen(sizes: ModelSizes, batches: Batches, plan: AccelerationPlan) -> Iterator[float]:
    """Yield the operations of each frozen layer, without the prefix, which is computed once per run."""
    rest = _count_positions(batches, plan)
    tokens, pairs = batches.samples * rest, batches.samples * rest * (rest + plan.prefix)
    for layer in sizes.layers[: plan.frozen if plan.is_fast else 0]:
        yield _count_linear(layer.all, tokens, False) + _count_attention(sizes, pairs, False)


def _count_fast(sizes: ModelSizes, batches: Batches, plan: AccelerationPlan, is_training: bool) -> Iterator[float]:
    """Yield the operations of each trainable layer in the fast forward pass: the prefix once per batch."""
    rest = _count_positions(batches, plan)
    tokens = batches.samples * rest + plan.prefix
    pairs = batches.samples * rest * (rest + plan.prefix) + plan.prefix**2
    for layer in sizes.layers[plan.frozen : -1]:
        repeats = int(is_training and layer.is_checkpointed)
        linear = _count_linear(layer.all, tokens, is_training, repeats)
        yield linear + _count_attention(sizes, pairs, is_training, repeats)
    last = sizes.layers[-1]
    rows = batches.samples * batches.most_answers
    # The layer computes queries of all positions before it stops, and keys and values of the rows once more.
    yield _count_linear(last.key_value, tokens, is_training) + _count_linear(last.query, tokens, False)
    yield _count_linear(last.query, rows, is_training) + _count_linear(last.other, rows, is_training)
    yield _count_linear(last.key_value, rows, False) + _count_attention(
        sizes, rows * (rest + plan.prefix), is_training
    )
