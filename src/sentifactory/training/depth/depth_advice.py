"""From the accuracy of each layer's probe to a recommendation: how many layers to keep, and how many to train."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sentifactory.metrics.significance import SIGNIFICANCE_LEVEL, Interval, compute_wilson_interval

KEEP_RULE = (
    "the fewest layers whose probe is within one standard error of the best layer's (the one-standard-error rule: "
    "Breiman et al. 1984, Classification and Regression Trees; Hastie et al., The Elements of Statistical Learning, "
    "7.10)"
)
TRAIN_RULE = (
    "a third of them, rounded up: a fourth of the layers reaches 90 % of the quality of full fine-tuning (Lee et al. "
    "2019, arXiv 1911.03090), and the recipes of this package train a third"
)
_TRAINED_SHARE = 1 / 3


@dataclass(frozen=True, slots=True)
class LayerResult:
    """The probe of one layer.

    Attributes:
        layer: 1 for the lowest.
        correct: reviews whose label the probe named.
        accuracy: as a share.
        interval: Wilson interval of the accuracy.
    """

    layer: int
    correct: int
    accuracy: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class DepthAdvice:
    """What the probes recommend.

    Attributes:
        best_layer: of the highest accuracy; the lowest such layer.
        standard_error: of its accuracy.
        keep_layers: how many of the lowest layers to keep; None where no layer is shown to tell the labels apart.
        train_layers: how many of those to train, from the top; None likewise.
    """

    best_layer: int
    standard_error: float
    keep_layers: int | None
    train_layers: int | None


def summarise_layers(correct: Sequence[int], n_reviews: int) -> list[LayerResult]:
    """Return accuracy and interval of each layer, the lowest first, from its count of correct reviews."""
    return [
        LayerResult(number, right, right / n_reviews, compute_wilson_interval(right, n_reviews))
        for number, right in enumerate(correct, 1)
    ]


def advise_depth(results: Sequence[LayerResult], n_reviews: int, majority_share: float) -> DepthAdvice:
    """Return how many layers to keep and to train, by `KEEP_RULE` and `TRAIN_RULE`.

    Nothing is recommended unless the best layer is shown to be better than the commonest label. The best of L layers
    is above it by chance more often than one layer is: its interval has the level 1 - 0.05 / L (Bonferroni).

    Args:
        results: of all layers, the lowest first.
        n_reviews: how many reviews they are of.
        majority_share: of the commonest label, which needs no model.

    Example:
        >>> results = summarise_layers([55, 70, 82, 85, 84], 100)
        >>> advice = advise_depth(results, 100, 0.5)
        >>> advice.best_layer, advice.keep_layers, advice.train_layers
        (4, 3, 1)
    """
    best = max(results, key=lambda one: one.accuracy)
    error = math.sqrt(best.accuracy * (1 - best.accuracy) / n_reviews)
    interval = compute_wilson_interval(best.correct, n_reviews, 1 - SIGNIFICANCE_LEVEL / len(results))
    if interval.low <= majority_share:
        return DepthAdvice(best.layer, error, None, None)
    keep = next(one.layer for one in results if one.accuracy >= best.accuracy - error)
    return DepthAdvice(best.layer, error, keep, math.ceil(keep * _TRAINED_SHARE))
