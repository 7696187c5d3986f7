"""Fits the bias-corrected calibration that a change of the labels' shares is estimated with, and its uncertainty.

Bias-corrected temperature scaling (Alexandari, Kundaje and Shrikumar 2020, Maximum likelihood with bias-corrected
calibration is hard-to-beat at label shift adaptation): one temperature and one bias for each label, fitted together by
maximum likelihood. Unlike a temperature alone it makes the mean probability of every label equal to its share among
the validation reviews, and these shares are then the ones from which a change is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sentifactory.metrics.calibration import MIN_PROBABILITY, BiasCorrection

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Penalty on the slope in standard deviations of the log-odds: it matters only where the labels are perfectly separated
# and the likelihood has no maximum.
_SLOPE_SCALE = 10.0
# Fewer reviews of a label tell too little of how much its offset would differ with others; a single one says nothing.
MIN_REVIEWS_OF_A_LABEL = 10


def fit_bias_correction(truth: Sequence[int], probabilities: NDArray) -> BiasCorrection | None:
    """Return the correction with the highest likelihood; None where confidence tells nothing or a label is rare.

    The covariance is that of the sandwich estimator (White 1982) for reviews drawn label by label: a change of shares
    leaves the reviews of each label as they are, so that how many of each were drawn does not matter (Prentice and
    Pyke 1979). The spread of each label's reviews is that of a sample, with its number less one as the divisor.

    Args:
        truth: (n,) true labels of validation reviews; of each label at least `MIN_REVIEWS_OF_A_LABEL`.
        probabilities: (n, n_labels) of these reviews, uncorrected.

    Example:
        >>> import numpy as np
        >>> likely = np.array([0.9, 0.9, 0.9, 0.9, 0.5, 0.5, 0.5, 0.5] * 3)
        >>> fitted = fit_bias_correction([1, 1, 1, 0, 0, 0, 0, 1] * 3, np.column_stack([1 - likely, likely]))
        >>> fitted.shares, [round(share, 2) for share in fitted.apply((0.1, 0.9))]
        ((0.5, 0.5), [0.25, 0.75])
    """
    import numpy as np
    from scipy.optimize import minimize

    true = np.asarray(truth, dtype=int)
    n, n_labels = probabilities.shape
    counts = np.bincount(true, minlength=n_labels)
    if counts.min() < MIN_REVIEWS_OF_A_LABEL:
        return None
    logs = np.log(np.clip(probabilities, MIN_PROBABILITY, 1))
    logs -= logs.mean(axis=1, keepdims=True)
    spread = float(np.sqrt((logs**2).sum(axis=1).mean()))
    if spread == 0:
        return None
    penalty = (spread / _SLOPE_SCALE) ** 2
    hits = np.eye(n_labels)[true]
    # (n, n_labels, n_labels): how the scores of the labels change with the slope and with the offsets of all labels
    # but the first, which is 0 because only differences matter.
    design = np.concatenate(
        [logs[:, :, None], np.broadcast_to(np.eye(n_labels)[:, 1:], (n, n_labels, n_labels - 1))], 2
    )

    def find_shares(parameters: NDArray) -> NDArray:
        scores = design @ parameters
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def compute_loss(parameters: NDArray) -> float:
        likely = np.clip(find_shares(parameters)[np.arange(n), true], np.finfo(float).tiny, 1)
        return float(-np.log(likely).sum() + penalty * parameters[0] ** 2 / 2)

    def find_slopes(parameters: NDArray) -> NDArray:
        """Return the gradient of each review's loss (n, n_labels)."""
        return np.einsum("nlp,nl->np", design, find_shares(parameters) - hits)

    def compute_gradient(parameters: NDArray) -> NDArray:
        gradient = find_slopes(parameters).sum(axis=0)
        gradient[0] += penalty * parameters[0]
        return gradient

    def compute_curvature(parameters: NDArray) -> NDArray:
        shares = find_shares(parameters)
        mean = np.einsum("nlp,nl->np", design, shares)
        curvature = np.einsum("nlp,nl,nlq->pq", design, shares, design) - mean.T @ mean
        curvature[0, 0] += penalty
        return curvature

    start = np.concatenate([[1.0], np.zeros(n_labels - 1)])
    found = minimize(
        compute_loss, start, jac=compute_gradient, hess=compute_curvature, method="trust-exact", options={"gtol": 1e-8}
    ).x
    if found[0] <= 0:
        return None
    slopes = find_slopes(found)
    within = slopes - np.stack([slopes[true == label].mean(axis=0) for label in range(n_labels)])[true]
    within *= np.sqrt(counts / (counts - 1))[true, None]
    inverse = np.linalg.inv(compute_curvature(found))
    covariance = inverse @ (within.T @ within) @ inverse
    # From offsets relative to the first label to ones that sum to 0.
    centre = np.eye(n_labels) - 1 / n_labels
    whole = np.zeros((n_labels + 1, n_labels))
    whole[0, 0], whole[1:, 1:] = 1, centre[:, 1:]
    covariance = whole @ covariance @ whole.T
    centred = centre[:, 1:] @ found[1:]
    return BiasCorrection(
        temperature=float(1 / found[0]),
        bias=tuple(map(float, -centred / found[0])),
        shares=tuple(map(float, counts / n)),
        covariance=tuple(tuple(map(float, row)) for row in covariance),
    )
