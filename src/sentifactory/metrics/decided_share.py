"""The share of reviews that a model can decide without a person, at an error of at most so much: selective prediction.

An answer is taken when its confidence reaches a threshold; all others go to a person (El-Yaniv and Wiener 2010, On the
foundations of noise-free selective classification). The threshold is the lowest one at which the answers of *other*
reviews reach the accuracy wanted (`ranking.choose_threshold`): of validation reviews, by the calibration, or, without
any, of the other folds of the test reviews. It is not chosen with a margin, so the error on the test reviews may lie
above the one wanted; it is given with its interval.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sentifactory.metrics.ranking import choose_threshold
from sentifactory.metrics.significance import Interval, compute_exact_interval, compute_wilson_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

VALIDATION, CROSS_FIT = "validation", "cross-fit"
FOLDS = 5


@dataclass(frozen=True, slots=True)
class DecidedShare:
    """What can be decided without a person.

    Attributes:
        target_error: the error wanted among the decided reviews.
        share: of all reviews, including those without an answer.
        share_interval: Wilson interval of the share, for this threshold; that of a cross-fit leaves out that other
            reviews would give other thresholds.
        decided: number of decided reviews.
        error: share of wrong answers among the decided; None where none is decided.
        error_interval: exact interval (Clopper and Pearson 1934) of the error; likewise.
        source: `validation` or `cross-fit`, where the threshold comes from.
    """

    target_error: float
    share: float
    share_interval: Interval
    decided: int
    error: float | None
    error_interval: Interval | None
    source: str

    def to_dict(self) -> dict[str, Any]:
        """Return the share as plain JSON values."""
        return asdict(self)


def decide_by_threshold(
    confidence: NDArray, is_right: NDArray, n_reviews: int, threshold: float | None, target_accuracy: float
) -> DecidedShare:
    """Return what is decided by the threshold of a calibration.

    Args:
        confidence: (n_known,) of the reviews that have an answer.
        is_right: (n_known,) whether the answer is right.
        n_reviews: number of all reviews, including those without an answer.
        threshold: None where no threshold reaches the accuracy: then nothing is decided.
        target_accuracy: that the threshold was chosen for.
    """
    import numpy as np

    taken = np.zeros(len(confidence), dtype=bool) if threshold is None else confidence >= threshold
    return _count(taken, is_right, n_reviews, target_accuracy, VALIDATION)


def decide_by_cross_fit(
    confidence: NDArray,
    is_right: NDArray,
    n_reviews: int,
    target_accuracy: float,
    *,
    min_reviews: int,
    seed: int = 0,
) -> DecidedShare | None:
    """Return what is decided when each fold's threshold is chosen on the other folds; None for too few reviews.

    Args:
        confidence: as `decide_by_threshold` takes it.
        is_right: likewise.
        n_reviews: likewise.
        target_accuracy: accuracy wanted among the decided reviews.
        min_reviews: thresholds that fewer reviews reach are ignored; there must be twice as many.
        seed: decides which reviews are in which fold.
    """
    import numpy as np

    n_known = len(confidence)
    if n_known < 2 * min_reviews:
        return None
    fold = np.random.default_rng(seed).permutation(n_known) % FOLDS
    taken = np.zeros(n_known, dtype=bool)
    for number in range(FOLDS):
        held = fold == number
        threshold = choose_threshold(confidence[~held], is_right[~held], target_accuracy, min_reviews)
        taken[held] = False if threshold is None else confidence[held] >= threshold
    return _count(taken, is_right, n_reviews, target_accuracy, CROSS_FIT)


def _count(taken: NDArray, is_right: NDArray, n_reviews: int, target_accuracy: float, source: str) -> DecidedShare:
    decided = int(taken.sum())
    wrong = decided - int(is_right[taken].sum())
    return DecidedShare(
        target_error=round(1 - target_accuracy, 6),
        share=decided / n_reviews,
        share_interval=compute_wilson_interval(decided, n_reviews),
        decided=decided,
        error=wrong / decided if decided else None,
        error_interval=compute_exact_interval(wrong, decided) if decided else None,
        source=source,
    )
