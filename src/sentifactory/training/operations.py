"""Counts the floating-point operations of training steps before they are made.

Counted are the matrix products: linear maps, attention and the vocabulary projection, two operations for each product
of two numbers. A forward pass through W weights takes 2 W a token, a backward pass 2 W for the gradient of the input
and 2 W for that of the weights that train (Kaplan et al., arXiv:2001.08361). All else (norms, activations, the
optimizer) is bound by memory and not counted here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sentifactory.training.acceleration import Way, count_frozen_layers
from sentifactory.training.answer_loss import find_causal_model

# LLaMA-Factory pads the samples of a batch to a multiple of this.
PADDED_TO = 8
# The forward pass of attention is two matrix products; the backward pass of a fused kernel is five.
_ATTENTION_BACKWARD = 2.5


@dataclass(frozen=True, slots=True)
class LayerSizes:
    """Weights of the linear maps of one decoder layer, each with those of them that train.

    Attributes:
        query: of the map to queries.
        key_value: of the maps to keys and values.
        other: of all other linear maps.
        is_checkpointed: whether the backward pass computes the layer a second time.
    """

    query: tuple[int, int]
    key_value: tuple[int, int]
    other: tuple[int, int]
    is_checkpointed: bool

    @property
    def all(self) -> tuple[int, int]:
        """All linear maps of the layer."""
        parts = (self.query, self.key_value, self.other)
        return sum(part[0] for part in parts), sum(part[1] for part in parts)


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """What of a model decides how much a step computes.

    Attributes:
        layers: of the decoder, the lowest first.
        first_trained: index of the lowest layer that the backward pass reaches.
        attention: heads times head size.
        vocabulary: rows of the vocabulary projection.
        hidden: H.
        is_head_trained: whether the projection's weights train (also those that are tied to the embeddings).
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
        samples: reviews.
        widths: tokens that each review of the batch is padded to.
        ends: one more than the last position of the batch that predicts an answer token.
        answers: positions that predict an answer token, of all reviews.
        most_answers: those of the review that has most.
    """

    samples: Any
    widths: Any
    ends: Any
    answers: Any
    most_answers: Any


def measure_model(model: Any) -> ModelSizes:
    """Return the sizes of a causal language model, whose weights may stand on the device `meta`."""
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
    """Return the batches of an epoch, or for a random order one that is as likely as any other.

    Args:
        shapes: (samples, 3), as `read_tokens` gives them.
        size: samples a batch; the last one may have fewer.
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


def count_batches(sizes: ModelSizes, batches: Batches, way: Way, *, is_training: bool) -> tuple[float, float]:
    """Return the operations of an epoch, and how many of them a trunk cache saves that holds every sample.

    Args:
        sizes: of the model.
        batches: of the epoch.
        way: which accelerations are on.
        is_training: False for evaluation, which goes forward alone.
    """
    trunk = sum(_count_trunk(sizes, batches, way))
    layers = sum(
        _count_fast(sizes, batches, way, is_training) if way.is_fast else _count_stock(sizes, batches, is_training)
    )
    rows = (batches.answers + 1) if way.is_answer_only else batches.samples * batches.widths
    passes = 1 + is_training * (1 + sizes.is_head_trained)
    head = 2.0 * sizes.hidden * sizes.vocabulary * passes * float(rows.sum())
    return trunk + layers + head, trunk


def _count_linear(weights: tuple[int, int], tokens: Any, is_training: bool, repeats: int = 0) -> float:
    """Return the operations of linear maps; `repeats` is 1 where the backward pass computes them again."""
    total, trained = weights
    per_token = 2 * total * (1 + repeats) + (2 * total + 2 * trained) * is_training
    return float(per_token * tokens.sum())


def _count_attention(sizes: ModelSizes, pairs: Any, is_training: bool, repeats: int = 0) -> float:
    """Return the operations for pairs of a query and a key, those that a mask hides included."""
    return float(4 * sizes.attention * (1 + repeats + _ATTENTION_BACKWARD * is_training) * pairs.sum())


def _count_stock(sizes: ModelSizes, batches: Batches, is_training: bool) -> Iterator[float]:
    """Yield the operations of each layer where every token goes through all of it."""
    tokens, pairs = batches.samples * batches.widths, batches.samples * batches.widths**2
    for index, layer in enumerate(sizes.layers):
        trains = is_training and index >= sizes.first_trained
        repeats = int(trains and layer.is_checkpointed)
        yield _count_linear(layer.all, tokens, trains, repeats) + _count_attention(sizes, pairs, trains, repeats)


def _count_trunk(sizes: ModelSizes, batches: Batches, way: Way) -> Iterator[float]:
    """Yield the operations of each layer whose output is the same in every epoch, the prefix (once a run) left out."""
    rest = batches.ends - way.prefix
    tokens, pairs = batches.samples * rest, batches.samples * rest * batches.ends
    for layer in sizes.layers[: way.frozen if way.is_fast else 0]:
        yield _count_linear(layer.all, tokens, False) + _count_attention(sizes, pairs, False)


def _count_fast(sizes: ModelSizes, batches: Batches, way: Way, is_training: bool) -> Iterator[float]:
    """Yield the operations of each layer above the trunk: the prefix once a batch, the last layer at answers alone."""
    rest = batches.ends - way.prefix
    tokens = batches.samples * rest + way.prefix
    pairs = batches.samples * rest * batches.ends + way.prefix**2
    for layer in sizes.layers[way.frozen : -1]:
        repeats = int(is_training and layer.is_checkpointed)
        linear = _count_linear(layer.all, tokens, is_training, repeats)
        yield linear + _count_attention(sizes, pairs, is_training, repeats)
    last = sizes.layers[-1]
    rows = batches.samples * batches.most_answers
    # Queries of the positions that give keys and values alone are computed and not used, and those of the rows again.
    yield _count_linear(last.key_value, tokens, is_training) + _count_linear(last.query, tokens, False)
    yield _count_linear(last.query, rows, is_training) + _count_linear(last.other, rows, is_training)
    yield _count_linear(last.key_value, rows, False) + _count_attention(sizes, rows * batches.ends, is_training)
