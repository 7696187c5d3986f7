"""Metrics that depend only on the order of scores: ROC-AUC, average precision, risk-coverage.

Each takes weights (rows, n_reviews) and returns one value per row, so that thousands of bootstrap draws are one pass;
a row of ones gives the plain metric. Ties are treated as in scikit-learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.typing import NDArray


def weigh_roc_auc(is_positive: NDArray, scores: NDArray, weights: NDArray) -> NDArray:
    """Return the area under the ROC curve (rows,): how often a positive review scores above a negative one."""
    import numpy as np

    order, starts = _group_scores(-scores)
    positive = np.add.reduceat((weights * is_positive)[:, order], starts, axis=1)
    negative = np.add.reduceat((weights * ~is_positive)[:, order], starts, axis=1)
    below = negative.sum(axis=1, keepdims=True) - np.cumsum(negative, axis=1)
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    return _divide_or_nan((positive * (below + negative / 2)).sum(axis=1), pairs)


def weigh_average_precision(is_positive: NDArray, scores: NDArray, weights: NDArray) -> NDArray:
    """Return the average precision (rows,): precision at each threshold, weighted by the recall it adds."""
    import numpy as np

    order, starts = _group_scores(-scores)
    found = np.add.reduceat((weights * is_positive)[:, order], starts, axis=1)
    claimed = np.cumsum(np.add.reduceat(weights[:, order], starts, axis=1), axis=1)
    precision = np.divide(np.cumsum(found, axis=1), claimed, out=np.zeros_like(claimed), where=claimed > 0)
    return _divide_or_nan((found * precision).sum(axis=1), found.sum(axis=1))


def weigh_aurc(confidence: NDArray, is_right: NDArray, weights: NDArray) -> NDArray:
    """Return the area under the risk-coverage curve (rows,): the mean error rate over all coverages; 0 is best.

    Geifman, Uziel and El-Yaniv 2019 (Bias-reduced uncertainty estimation for deep neural classifiers).
    """
    import numpy as np

    order, starts = _group_scores(-confidence)
    mass = np.add.reduceat(weights[:, order], starts, axis=1)
    wrong = np.cumsum(np.add.reduceat((weights * ~is_right)[:, order], starts, axis=1), axis=1)
    answered = np.cumsum(mass, axis=1)
    risk = np.divide(wrong, answered, out=np.zeros_like(wrong), where=answered > 0)
    return (mass * risk).sum(axis=1) / weights.sum(axis=1)


def trace_risk_coverage(confidence: NDArray, is_right: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Return coverage, error rate of the answered, and threshold at every distinct confidence, in descending order."""
    import numpy as np

    order, starts = _group_scores(-confidence)
    answered = np.cumsum(np.add.reduceat(np.ones(len(confidence)), starts))
    wrong = np.cumsum(np.add.reduceat((~is_right[order]).astype(float), starts))
    return answered / len(confidence), wrong / answered, confidence[order][starts]


def choose_threshold(confidence: NDArray, is_right: NDArray, target_accuracy: float, min_reviews: int) -> float | None:
    """Return the lowest confidence threshold at which the answers reach an accuracy, or None if no threshold does.

    Args:
        confidence: (n,) on validation reviews; a threshold chosen on the test reviews would be biased.
        is_right: (n,) whether each answer is right.
        target_accuracy: the accuracy wanted among the answered reviews.
        min_reviews: thresholds that fewer reviews reach are ignored, as they depend on chance.
    """
    import numpy as np

    coverage, risk, thresholds = trace_risk_coverage(confidence, is_right)
    answered = np.rint(coverage * len(confidence))
    wrong = np.rint(risk * answered)
    # In whole reviews: 7 wrong ones of 100 reach 0.93, which 1 - 0.07 does not in floating point.
    fits = (answered - wrong >= target_accuracy * answered - 1e-9) & (answered >= min_reviews)
    return float(thresholds[np.flatnonzero(fits)[-1]]) if fits.any() else None


def _group_scores(scores: NDArray) -> tuple[NDArray, NDArray]:
    """Return the order of ascending scores, and where in it each group of equal scores starts."""
    import numpy as np

    order = np.argsort(scores, kind="stable")
    return order, np.flatnonzero(np.diff(scores[order], prepend=-np.inf) != 0)


def _divide_or_nan(upper: NDArray, lower: NDArray) -> NDArray:
    import numpy as np

    return np.divide(upper, lower, out=np.full_like(upper, np.nan), where=lower > 0)
