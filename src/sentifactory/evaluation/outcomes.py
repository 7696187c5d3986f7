"""Who takes part in a comparison, what each answered (one engine after the other), and what that is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.engines.calibration import Calibration
from sentifactory.evaluation.breakdown import GroupScores, score_groups
from sentifactory.evaluation.metrics import Metrics, compute_metrics
from sentifactory.evaluation.predicting import Answers, collect_answers
from sentifactory.evaluation.probabilities import (
    Abstention,
    ProbabilityMetrics,
    abstain_below,
    find_known,
    score_probabilities,
    stack_probabilities,
)
from sentifactory.evaluation.reliability import find_confidence
from sentifactory.progress import say
from sentifactory.records import Prediction, Review
from sentifactory.task import Task

if TYPE_CHECKING:
    from sentifactory.engines.base import Engine

# In the order in which tables and pictures show them.
CONTENDER_NAMES = ("majority", "base", "tuned", "tfidf")


@dataclass(frozen=True, slots=True)
class Contender:
    """One that is to be asked.

    Attributes:
        name: `base`, `tuned`, `tfidf` or `majority`.
        model: its folder, its name at an address, or what it is made from.
        engine: the kind of engine that runs it, such as `vllm`.
        open_engine: starts its engine; the context manager ends it.
        facts: what else the report says about it (its run card, its weights).
        journal: file in which its answers are written down as they come; None for one that answers in no time.
        fingerprint: of all that decides its answers, beside the reviews.
    """

    name: str
    model: str
    engine: str
    open_engine: Callable[[], AbstractContextManager[Engine]]
    facts: dict[str, Any] = field(default_factory=dict)
    journal: Path | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one contender answered to one test file.

    Attributes:
        contender: who it was.
        predictions: (n_reviews,) in the order of the reviews.
        metrics: the figures against the true labels.
        start_s: seconds until its engine was ready.
        reviews_per_s: over all that it was asked; None where that took no time.
        groups: the scores by domain and length.
        probability: the figures of its probabilities as they are; None where it gives none.
        calibration: how its probabilities are corrected, fitted on validation reviews; None where it is not.
        calibrated: the figures of the corrected probabilities.
        calibrated_accuracy: share of right answers after the correction, which may change answers.
        sure: what happens when only answers above the calibration's threshold are given.
    """

    contender: Contender
    predictions: tuple[Prediction, ...]
    metrics: Metrics
    start_s: float = 0.0
    reviews_per_s: float | None = None
    groups: tuple[GroupScores, ...] = ()
    probability: ProbabilityMetrics | None = None
    calibration: Calibration | None = None
    calibrated: ProbabilityMetrics | None = None
    calibrated_accuracy: float | None = None
    sure: Abstention | None = None

    @property
    def name(self) -> str:
        """The contender's name."""
        return self.contender.name

    def is_right(self, reviews: Sequence[Review]) -> list[bool]:
        """Return for each review whether the answer is its true label."""
        return [prediction.label == review.label for prediction, review in zip(self.predictions, reviews, strict=True)]


def ask_contender(contender: Contender, reviews: Sequence[Review]) -> Answers:
    """Start one engine, ask it all reviews and end it; raises what `predicting.collect_answers` raises."""
    say(f"{contender.name}: {contender.model}")
    return collect_answers(contender.open_engine, reviews, contender.journal, contender.fingerprint)


def ask_contenders(contenders: Sequence[Contender], reviews: Sequence[Review]) -> dict[str, Answers]:
    """Ask each contender in turn and return the answers by name, in the order of `CONTENDER_NAMES`.

    Raises:
        EngineError: when one of them fails; the comparison then has no result at all.
    """
    answers = {contender.name: ask_contender(contender, reviews) for contender in contenders}
    return {name: answers[name] for name in CONTENDER_NAMES if name in answers}


def judge_answers(
    contender: Contender,
    answers: Answers,
    rows: slice,
    reviews: Sequence[Review],
    task: Task,
    calibration: Calibration | None = None,
    seed: int = 0,
) -> Outcome:
    """Return the figures of a contender on one test file.

    Args:
        contender: who it is.
        answers: all that it answered.
        rows: the place of the file's reviews among them.
        reviews: (n_reviews,) the file's reviews.
        task: what was asked.
        calibration: corrects its probabilities.
        seed: seed of the bootstrap.
    """
    predictions = answers.predictions[rows]
    truth = [review.label for review in reviews if review.label is not None]
    outcome = Outcome(
        contender,
        predictions,
        compute_metrics(truth, [prediction.label for prediction in predictions], task.labels, seed=seed),
        answers.start_s,
        len(answers.predictions) / answers.predict_s if answers.predict_s > 0 else None,
        tuple(score_groups(reviews, predictions)),
    )
    probability = score_probabilities(truth, predictions, task.labels, seed=seed)
    if probability is None or outcome.name == "majority":
        return outcome
    outcome = replace(outcome, probability=probability)
    return outcome if calibration is None else apply_calibration(outcome, calibration, truth, task, seed)


def apply_calibration(
    outcome: Outcome, calibration: Calibration, truth: Sequence[int], task: Task, seed: int
) -> Outcome:
    """Return an outcome with probabilities and with the figures of the corrected ones as well."""
    import numpy as np

    predictions = [calibration.correct(prediction) for prediction in outcome.predictions]
    shares, known = stack_probabilities(predictions), find_known(predictions)
    if shares is None:
        return outcome
    given, confidence = find_confidence(shares)
    is_right = given == np.asarray(truth)[known]
    threshold, n_reviews = calibration.threshold, len(truth)
    is_ever_sure = threshold is not None and bool((confidence >= threshold).any())
    return replace(
        outcome,
        calibration=calibration,
        calibrated=score_probabilities(truth, predictions, task.labels, seed=seed),
        calibrated_accuracy=int(is_right.sum()) / n_reviews,
        sure=abstain_below(confidence, is_right, threshold, n_reviews)
        if threshold is not None and is_ever_sure
        else None,
    )
