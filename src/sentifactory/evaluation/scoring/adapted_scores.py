"""What adapting to the labels' shares among the test reviews does for a model; `metrics.prior_shift` says how.

The shares are estimated from the test reviews without their labels, by every model from its own probabilities, so that
whoever uses a model has the same gain with reviews of their own. The labels only measure the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sentifactory.bilingual import Sentence
from sentifactory.evaluation.scoring.review_sets import TestSet
from sentifactory.metrics.calibration import Calibration
from sentifactory.metrics.label_metrics import Metrics, compute_metrics
from sentifactory.metrics.prior_shift import (
    NO_CORRECTION,
    PriorShift,
    adapt_calibration,
    estimate_shares,
    explain_few,
    explain_thin,
)
from sentifactory.metrics.probability_metrics import stack_probabilities
from sentifactory.metrics.significance import PairedTest, compare_paired, correct_family
from sentifactory.records import Prediction, Review
from sentifactory.system.progress import say
from sentifactory.task.task import Task

NO_PROBABILITIES = Sentence("the model gave no probabilities", "该模型没有给出概率")


@dataclass(frozen=True, slots=True)
class AdaptedScores:
    """The adaptation of one model on one test file.

    Attributes:
        refused: why nothing was adapted; None where something was, or where no shift is shown.
        shift: the estimated shares; None where they could not be estimated.
        true_shares: (n_labels,) of the labels among the test reviews.
        predictions: (n_reviews,) after the adaptation; the same ones where nothing was adapted.
        metrics: the figures of these.
        test: adapted against unadapted answers.
    """

    refused: Sentence | None
    shift: PriorShift | None
    true_shares: tuple[float, ...]
    predictions: tuple[Prediction, ...]
    metrics: Metrics
    test: PairedTest

    @property
    def is_adapted(self) -> bool:
        """Whether the answers are adapted: there is an estimate, and it shows a shift."""
        return self.refused is None and self.shift is not None and self.shift.is_shown

    def to_dict(self) -> dict[str, Any]:
        """Return the adaptation without the predictions as plain JSON values."""
        return {
            "is_adapted": self.is_adapted,
            "refused": asdict(self.refused) if self.refused else None,
            "shift": self.shift.to_dict() if self.shift else None,
            "true_shares": list(self.true_shares),
            "metrics": self.metrics.to_dict(),
            "against_unadapted": self.test.to_dict(),
        }


def warn_of_unadapted(tests: Sequence[TestSet]) -> None:
    """Say, before any model is asked, which test files have too few reviews for an adaptation."""
    for test in tests:
        if (few := explain_few(len(test.reviews))) is not None:
            say(f"WARNING: {test.name}: no answer will be adapted: {few.en}")


def adapt_scores(
    predictions: Sequence[Prediction],
    reviews: Sequence[Review],
    calibration: Calibration | None,
    task: Task,
    seed: int = 0,
) -> AdaptedScores:
    """Return what adapting does for the answers of one model.

    Args:
        predictions: (n_reviews,) uncorrected.
        reviews: (n_reviews,) of the test file.
        calibration: of the model; its bias correction is used.
        task: what was asked.
        seed: of the bootstrap.
    """
    truth = [review.label for review in reviews if review.label is not None]
    refused, shift = _estimate(predictions, calibration)
    adapted = tuple(predictions)
    if calibration is not None and refused is None and shift is not None and shift.is_shown:
        after = adapt_calibration(calibration, shift.shares)
        adapted = tuple(map(after.correct, predictions))
    rights = (
        [one.label == review.label for one, review in zip(answers, reviews, strict=True)]
        for answers in (predictions, adapted)
    )
    return AdaptedScores(
        refused,
        shift,
        tuple(truth.count(label) / len(truth) for label in range(len(task.labels))),
        adapted,
        compute_metrics(truth, [one.label for one in adapted], task.labels, seed=seed),
        compare_paired(*rights),
    )


def _estimate(
    predictions: Sequence[Prediction], calibration: Calibration | None
) -> tuple[Sentence | None, PriorShift | None]:
    """Return why the answers are not adapted, and the estimated shares where there is an estimate."""
    shares = stack_probabilities(predictions)
    if shares is None:
        return NO_PROBABILITIES, None
    if calibration is None or calibration.bias_correction is None:
        return NO_CORRECTION, None
    if (few := explain_few(len(shares))) is not None:
        return few, None
    shift = estimate_shares(shares, calibration.bias_correction)
    return explain_thin(shift), shift


def compare_adapted(
    adapted: Mapping[str, AdaptedScores], reviews: Sequence[Review]
) -> dict[tuple[str, str], PairedTest]:
    """Return the paired test of each two models under (first, second) after adaptation, corrected as one family."""
    rights = {
        name: [answer.label == review.label for answer, review in zip(one.predictions, reviews, strict=True)]
        for name, one in adapted.items()
    }
    names = list(rights)
    return correct_family(
        {
            (first, second): compare_paired(rights[first], rights[second])
            for place, first in enumerate(names)
            for second in names[place + 1 :]
        }
    )
