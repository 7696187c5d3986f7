"""Calibration metrics: expected calibration error, Brier score, log loss, reliability diagram.

Confidence is the probability of the answered label (the largest one), as in Guo et al. 2017 (On calibration of modern
neural networks). Equal-width bins are the usual ones; equal-mass bins (Nixon et al. 2019) hold the same number of
reviews each, so that no bin has only a few. The ECE is above 0 even if all probabilities are exactly right; its
expectation in that case is computed as well (Bröcker and Smith 2007).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sentifactory.metrics.calibration import MIN_PROBABILITY
from sentifactory.metrics.significance import Interval, compute_wilson_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 15
_CHANCE_DRAWS = 500


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The reviews whose confidence is in one bin; `interval` is the Wilson interval of their accuracy."""

    low: float
    high: float
    reviews: int
    confidence: float
    accuracy: float
    interval: Interval


def find_confidence(probabilities: NDArray) -> tuple[NDArray, NDArray]:
    """Return the answered label (n,) and its probability (n,) from probabilities (n, n_labels)."""
    return probabilities.argmax(axis=1), probabilities.max(axis=1)


def make_width_edges(bins: int = BINS) -> NDArray:
    """Return the edges (bins + 1,) of bins of equal width from 0 to 1."""
    import numpy as np

    return np.linspace(0, 1, bins + 1)


def make_mass_edges(confidence: NDArray, bins: int = BINS) -> NDArray:
    """Return the edges of bins with equally many reviews; bins with the same edges are merged."""
    import numpy as np

    inner = np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1], method="lower")
    return np.concatenate([[0.0], np.unique(inner[(inner > 0) & (inner < 1)]), [1.0]])


def assign_bins(confidence: NDArray, edges: NDArray) -> NDArray:
    """Return the bin (n,) of each confidence; a bin includes its upper edge and not its lower one."""
    import numpy as np

    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, len(edges) - 2)


def list_bins(confidence: NDArray, is_right: NDArray, edges: NDArray) -> list[ReliabilityBin]:
    """Return the bins that are not empty, in order of confidence."""
    bin_of = assign_bins(confidence, edges)
    found = []
    for index in range(len(edges) - 1):
        inside = bin_of == index
        reviews = int(inside.sum())
        if reviews:
            correct = int(is_right[inside].sum())
            found.append(
                ReliabilityBin(
                    float(edges[index]),
                    float(edges[index + 1]),
                    reviews,
                    float(confidence[inside].mean()),
                    correct / reviews,
                    compute_wilson_interval(correct, reviews),
                )
            )
    return found


def weigh_ece(confidence: NDArray, is_right: NDArray, edges: NDArray, weights: NDArray) -> NDArray:
    """Return the expected calibration error (rows,) of weighted reviews; the rows of weights have equal sums."""
    import numpy as np

    gaps = np.zeros((len(confidence), len(edges) - 1))
    gaps[np.arange(len(confidence)), assign_bins(confidence, edges)] = confidence - is_right
    return np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)


def expect_chance_ece(confidence: NDArray, edges: NDArray, seed: int = 0) -> float:
    """Return the expected ECE on this many reviews if every confidence were exactly right."""
    import numpy as np

    rng = np.random.default_rng(seed)
    bin_of = assign_bins(confidence, edges)
    order = np.argsort(bin_of, kind="stable")
    starts = np.flatnonzero(np.diff(bin_of[order], prepend=-1))
    sorted_confidence = confidence[order]
    values = []
    for _ in range(_CHANCE_DRAWS):
        gaps = sorted_confidence - (rng.random(len(confidence)) < sorted_confidence)
        values.append(np.abs(np.add.reduceat(gaps, starts)).sum() / len(confidence))
    return float(np.mean(values))


def list_brier(truth: NDArray, probabilities: NDArray) -> NDArray:
    """Return the Brier score of each review (n,): the squared error summed over labels; with two labels, of one.

    This is scikit-learn's convention: 0 is best, and with two labels 0.25 is that of a fair coin.
    """
    import numpy as np

    hits = np.eye(probabilities.shape[1])[truth]
    scores = ((probabilities - hits) ** 2).sum(axis=1)
    return scores / 2 if probabilities.shape[1] == 2 else scores


def list_nll(truth: NDArray, probabilities: NDArray) -> NDArray:
    """Return the negative log-likelihood of each review (n,), in nats."""
    import numpy as np

    return -np.log(np.clip(probabilities[np.arange(len(truth)), truth], MIN_PROBABILITY, 1.0))
