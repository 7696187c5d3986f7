"""Combines the probabilities of several models into one distribution: stacking by multinomial logistic regression.

The log-odds of each label are a weighted sum of the models' log-odds plus a bias of the label:
softmax(sum_m weight_m * log p_m + bias), a logarithmic opinion pool (Genest and Zidek 1986) with fitted weights. With
two labels this is logistic regression over the models' log-odds (Wolpert 1992, Stacked generalization). A weight is
the same for all labels, so that a few hundred validation reviews suffice for any number of labels, and never negative
(Breiman 1996, Stacked regressions): a model that adds nothing is ignored rather than contradicted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sentifactory.metrics.calibration import MIN_PROBABILITY

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDS = 5


@dataclass(frozen=True, slots=True)
class Combination:
    """A fitted combination.

    Attributes:
        weights: (n_models,) of the models' log-probabilities; 0 or more.
        bias: (n_labels,) added to the log-odds.
    """

    weights: tuple[float, ...]
    bias: tuple[float, ...]

    def apply(self, shares: Sequence[Sequence[float]]) -> tuple[float, ...]:
        """Return the combined probabilities (n_labels,) of one review from those of each model.

        Example:
            >>> both = Combination((1.0, 1.0), (0.0, 0.0))
            >>> [round(share, 3) for share in both.apply([(0.25, 0.75), (0.25, 0.75)])]
            [0.1, 0.9]
        """
        scores = list(self.bias)
        for weight, own in zip(self.weights, shares, strict=True):
            for label, share in enumerate(own):
                scores[label] += weight * math.log(max(share, MIN_PROBABILITY))
        highest = max(scores)
        powers = [math.exp(score - highest) for score in scores]
        return tuple(power / sum(powers) for power in powers)


def fit_combination(truth: NDArray, shares: Sequence[NDArray]) -> Combination:
    """Return the combination with the highest likelihood, less half the squared length of weights and bias.

    The penalty is that of scikit-learn's logistic regression with C = 1: it matters only where so few reviews, or ones
    so easily told apart, leave the weights open.

    Args:
        truth: (n,) true labels of reviews that none of the models was trained on.
        shares: of each model (n, n_labels), in the order of the weights.
    """
    import numpy as np
    from scipy.optimize import minimize

    logs = np.stack([np.log(np.clip(own, MIN_PROBABILITY, 1)) for own in shares])  # (M, n, L)
    n_models, n, n_labels = logs.shape
    hits = np.eye(n_labels)[truth]  # (n, L)

    def compute_loss(parameters: NDArray) -> tuple[float, NDArray]:
        weights, bias = parameters[:n_models], parameters[n_models:]
        scores = np.tensordot(weights, logs, 1) + bias
        scores -= scores.max(axis=1, keepdims=True)
        powers = np.exp(scores)
        totals = powers.sum(axis=1, keepdims=True)
        loss = float((np.log(totals[:, 0]) - scores[np.arange(n), truth]).sum() + parameters @ parameters / 2)
        gaps = powers / totals - hits  # (n, L)
        slope = np.concatenate([np.tensordot(logs, gaps, 2), gaps.sum(axis=0)]) + parameters
        return loss, slope

    start = np.concatenate([np.full(n_models, 1 / n_models), np.zeros(n_labels)])
    bounds = [(0, None)] * n_models + [(None, None)] * n_labels
    found = minimize(compute_loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return Combination(tuple(map(float, found[:n_models])), tuple(map(float, found[n_models:])))


def cross_fit(truth: NDArray, shares: Sequence[NDArray], seed: int = 0) -> NDArray:
    """Return combined probabilities (n, n_labels), each review's by a combination fitted on the other folds.

    What is fitted on these or measured with them is not flattered by reviews that the combination has seen.

    Args:
        truth: (n,) true labels.
        shares: as `fit_combination` takes them.
        seed: decides which reviews are in which of the `FOLDS` folds; each fold has its share of every label.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    fold = np.empty(len(truth), dtype=int)
    n_dealt = 0
    for label in np.unique(truth):
        rows = rng.permutation(np.flatnonzero(truth == label))
        fold[rows] = (np.arange(len(rows)) + n_dealt) % FOLDS
        n_dealt += len(rows)
    combined = np.empty_like(shares[0], dtype=float)
    for number in range(FOLDS):
        held, rest = fold == number, fold != number
        fitted = fit_combination(truth[rest], [own[rest] for own in shares])
        for row in np.flatnonzero(held):
            combined[row] = fitted.apply([own[row].tolist() for own in shares])
    return combined
