"""The second step of a comparison: every model's answers become figures, before and after calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.engines.ask import Answers
from sentifactory.engines.base import Mode
from sentifactory.engines.local.stack_folder import is_fitted_on, is_stack
from sentifactory.errors import ConfigError
from sentifactory.evaluation.scoring.adapted_scores import AdaptedScores, adapt_scores
from sentifactory.evaluation.scoring.asked_models import AskedModels, ComparedModel, Questions
from sentifactory.evaluation.scoring.breakdown import GroupScores, score_groups
from sentifactory.evaluation.scoring.review_sets import TestSet
from sentifactory.metrics.calibration import CALIBRATION_NAME, Calibration, find_calibration, save_calibration
from sentifactory.metrics.calibration_fit import MIN_VALIDATION_REVIEWS, fit_calibration, refuse_few
from sentifactory.metrics.decided_share import DecidedShare, decide_by_cross_fit, decide_by_threshold
from sentifactory.metrics.label_metrics import Metrics, compute_metrics
from sentifactory.metrics.probability_metrics import (
    Abstention,
    ProbabilityMetrics,
    abstain_below,
    find_known,
    score_probabilities,
    stack_probabilities,
)
from sentifactory.metrics.reliability import find_confidence
from sentifactory.records import Prediction, Review
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.json_text import read_json_object
from sentifactory.system.progress import say
from sentifactory.task.task import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ScoredPredictions:
    """The predictions of one model for one test file, with their figures.

    Attributes:
        model: whose predictions they are.
        predictions: (n_reviews,) in the order of the reviews.
        metrics: the figures against the true labels.
        start_s: seconds until the engine was ready.
        reviews_per_s: over everything that the model was asked; None where that took no time.
        peak_bytes: most memory while it was asked; None where that is not known.
        groups: the scores by domain and length.
        probability: the figures of the uncorrected probabilities; None where the model gives none.
        calibration: corrects the probabilities; None where there is none.
        calibrated: the figures of the corrected probabilities.
        calibrated_accuracy: share of right answers after the correction, which may change answers.
        sure: what happens when only answers above the calibration's threshold are given.
        decided: the share that can be decided without a person: by the threshold of the validation reviews where there
            are any, else cross-fitted on the test reviews, for every model alike; None without probabilities.
        adapted: the answers adapted to the labels' shares; None where that was not asked for.
    """

    model: ComparedModel
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
    decided: DecidedShare | None = None
    adapted: AdaptedScores | None = None
    peak_bytes: int | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def labels(self) -> list[int | None]:
        """The answered labels (n_reviews,), None where unparsed."""
        return [prediction.label for prediction in self.predictions]

    def is_right(self, reviews: Sequence[Review]) -> list[bool]:
        """Return for each review whether the answer is its true label."""
        return [prediction.label == review.label for prediction, review in zip(self.predictions, reviews, strict=True)]


@dataclass(frozen=True, slots=True)
class Scores:
    """The figures of every model on every test file.

    Attributes:
        tests: for each test file the scored predictions by model, in the order of the report.
        calibrations: of each model by name; None where there is none.
    """

    tests: list[dict[str, ScoredPredictions]]
    calibrations: dict[str, Calibration | None]


def score_models(
    asked: AskedModels,
    tests: Sequence[TestSet],
    task: Task,
    *,
    val_path: str | None,
    target_accuracy: float,
    seed: int,
    adapt_prior: bool = False,
) -> Scores:
    """Calibrate every model and score its answers to every test file.

    Args:
        asked: the models and their answers.
        tests: the test files that they were asked about.
        task: what was asked.
        val_path: the file of the validation reviews; None where there are none.
        target_accuracy: accuracy that answers above the threshold of a calibration must reach.
        seed: seed of the bootstrap.
        adapt_prior: also adapt every model's answers to the labels' shares among the reviews of each test file.

    Raises:
        ConfigError: when there are too few validation reviews, or a saved calibration cannot be used.
    """
    models = {model.name: model for model in asked.models}
    calibrations = {
        name: choose_calibration(model, asked, task, val_path, target_accuracy) for name, model in models.items()
    }
    scored = [
        {
            name: add_decided_share(
                score_predictions(models[name], answers, rows, test.reviews, task, calibrations[name], seed),
                test.reviews,
                target_accuracy,
                has_validation=val_path is not None,
                seed=seed,
            )
            for name, answers in asked.answers.items()
        }
        for test, rows in zip(tests, asked.questions.test_rows, strict=True)
    ]
    if adapt_prior:
        for test, by_model in zip(tests, scored, strict=True):
            for name, one in by_model.items():
                if name != "majority":
                    adapted = adapt_scores(one.predictions, test.reviews, calibrations[name], task, seed)
                    by_model[name] = replace(one, adapted=adapted)
    return Scores(scored, calibrations)


def score_predictions(
    model: ComparedModel,
    answers: Answers,
    rows: slice,
    reviews: Sequence[Review],
    task: Task,
    calibration: Calibration | None = None,
    seed: int = 0,
) -> ScoredPredictions:
    """Return the figures of a model on one test file.

    Args:
        model: whose answers they are.
        answers: everything that it answered.
        rows: the rows of the test file among them.
        reviews: (n_reviews,) of the test file.
        task: what was asked.
        calibration: corrects its probabilities.
        seed: seed of the bootstrap.
    """
    predictions = answers.predictions[rows]
    truth = [review.label for review in reviews if review.label is not None]
    scored = ScoredPredictions(
        model,
        predictions,
        compute_metrics(truth, [prediction.label for prediction in predictions], task.labels, seed=seed),
        answers.start_s,
        len(answers.predictions) / answers.predict_s if answers.predict_s > 0 else None,
        tuple(score_groups(reviews, predictions)),
        peak_bytes=answers.peak_bytes,
    )
    probability = score_probabilities(truth, predictions, task.labels, seed=seed)
    if probability is None or model.name == "majority":
        return scored
    scored = replace(scored, probability=probability)
    return scored if calibration is None else apply_calibration(scored, calibration, truth, task, seed)


def apply_calibration(
    scored: ScoredPredictions, calibration: Calibration, truth: Sequence[int], task: Task, seed: int
) -> ScoredPredictions:
    """Return scored predictions that have the figures of the corrected probabilities as well."""
    import numpy as np

    predictions = [calibration.correct(prediction) for prediction in scored.predictions]
    shares, known = stack_probabilities(predictions), find_known(predictions)
    if shares is None:
        return scored
    given, confidence = find_confidence(shares)
    is_right = given == np.asarray(truth)[known]
    threshold, n_reviews = calibration.threshold, len(truth)
    is_ever_sure = threshold is not None and bool((confidence >= threshold).any())
    return replace(
        scored,
        calibration=calibration,
        calibrated=score_probabilities(truth, predictions, task.labels, seed=seed),
        calibrated_accuracy=int(is_right.sum()) / n_reviews,
        sure=abstain_below(confidence, is_right, threshold, n_reviews)
        if threshold is not None and is_ever_sure
        else None,
    )


def add_decided_share(
    scored: ScoredPredictions,
    reviews: Sequence[Review],
    target_accuracy: float,
    *,
    has_validation: bool,
    seed: int = 0,
) -> ScoredPredictions:
    """Return scored predictions with the share that can be decided without a person.

    Args:
        scored: of one test file.
        reviews: (n_reviews,) of the test file.
        target_accuracy: accuracy wanted among the decided reviews.
        has_validation: whether the calibration was fitted on validation reviews of this comparison. A model without
            one then has no share: a cross-fit next to thresholds of validation reviews would not be a fair comparison.
        seed: of the folds of a cross-fit.
    """
    calibration = scored.calibration
    # The threshold of a stack's own calibration may have been chosen for another accuracy: see `choose_calibration`.
    is_without = calibration is None or calibration.target_accuracy != target_accuracy
    if scored.probability is None or (has_validation and is_without):
        return scored
    predictions = [calibration.correct(one) for one in scored.predictions] if calibration else scored.predictions
    if not has_validation:
        return replace(scored, decided=cross_fit_decided(predictions, reviews, target_accuracy, seed))
    assert calibration is not None  # noqa: S101 - the first condition
    confidence, is_right = _find_certainty(predictions, reviews)
    decided = decide_by_threshold(confidence, is_right, len(reviews), calibration.threshold, target_accuracy)
    return replace(scored, decided=decided)


def cross_fit_decided(
    predictions: Sequence[Prediction], reviews: Sequence[Review], target_accuracy: float, seed: int
) -> DecidedShare | None:
    """Return the cross-fitted share that predictions decide; None without probabilities, or for too few reviews."""
    if not any(one.probabilities is not None for one in predictions):
        return None
    confidence, is_right = _find_certainty(predictions, reviews)
    return decide_by_cross_fit(
        confidence, is_right, len(reviews), target_accuracy, min_reviews=MIN_VALIDATION_REVIEWS, seed=seed
    )


def _find_certainty(predictions: Sequence[Prediction], reviews: Sequence[Review]) -> tuple[NDArray, NDArray]:
    """Return confidence (n_known,) and whether it is right (n_known,) of each answer that has probabilities."""
    import numpy as np

    known = [
        (max(one.probabilities), one.label == review.label)
        for one, review in zip(predictions, reviews, strict=True)
        if one.probabilities is not None
    ]
    return np.array([share for share, _ in known]), np.array([is_right for _, is_right in known], dtype=bool)


def check_calibrations(
    models: Sequence[ComparedModel], questions: Questions, task: Task, val_path: str | None, mode: Mode
) -> None:
    """Refuse, before any model is asked, what `choose_calibration` would refuse after all have answered.

    Raises:
        ConfigError: when there are too few validation reviews, or a saved calibration cannot be used.
    """
    if val_path is not None and mode == "score":
        refuse_few([review.label for review in questions.val], val_path)
    for model in models if val_path is None else ():
        find_saved_calibration(model, task)


def find_saved_calibration(model: ComparedModel, task: Task) -> Calibration | None:
    """Return the calibration saved with a model; raises what `find_calibration` raises."""
    if model.name == "majority" or model.has_own_prompt:  # a calibration belongs to a prompt
        return None
    return find_calibration(model.name_or_path, task, model.facts.get("weights", {}))


def find_cross_fitted(
    model: str, task: Task, sha256: str, weights: dict[str, str] | None = None
) -> Calibration | None:
    """Return the cross-fitted calibration that a stack was made with; None, with the reason on stderr, if it is gone.

    Its answers to the validation reviews that it was fitted on are too good to fit another one on them.

    Args:
        model: folder of a stack that was fitted on the file with this hash.
        task: what is asked.
        sha256: of the file of validation reviews.
        weights: as `find_calibration` takes them.

    Raises:
        ConfigError: when the file is there and cannot be used.
    """
    calibration = find_calibration(model, task, weights)
    if calibration is not None and calibration.fitted_on.get("sha256") == sha256:
        say(f"{model}: it was fitted on these validation reviews, and keeps its cross-fitted calibration")
        return calibration
    say(
        f"{model}: it was fitted on these validation reviews, and its cross-fitted calibration is gone or was "
        "replaced; make the stack again, or take other validation reviews"
    )
    return None


def choose_calibration(
    model: ComparedModel, asked: AskedModels, task: Task, val_path: str | None, target_accuracy: float
) -> Calibration | None:
    """Return a calibration fitted on the validation reviews if there are any, else the one saved with the model.

    A stack that was fitted on the same validation reviews keeps its own; its threshold decides nothing where another
    accuracy is wanted. An untuned model may prefer one label: for `base`, with any prompt, the methods that fit a bias
    are tried as well. Where nothing can be fitted, the reason goes to stderr.
    """
    if val_path is None or model.name == "majority":
        return find_saved_calibration(model, task)
    sha256 = hash_file(Path(val_path))
    if is_fitted_on(model.name_or_path, sha256):
        own = find_cross_fitted(model.name_or_path, task, sha256, model.facts.get("weights", {}))
        if own is not None and own.target_accuracy != target_accuracy:
            say(
                f"{model.name}: its threshold was chosen for an accuracy of {own.target_accuracy:g}, so that no share "
                f"decided at {target_accuracy:g} is given; pass --target_accuracy {own.target_accuracy:g}, or make "
                f"the stack with --target_accuracy {target_accuracy:g}"
            )
        return own
    questions, answers = asked.questions, asked.answers[model.name]
    predictions = answers.predictions[questions.val_rows]
    shares, known = stack_probabilities(predictions), find_known(predictions)
    if shares is None:
        why = (
            "it answered none of the validation reviews: there is nothing to calibrate on"
            if all(prediction.label is None for prediction in predictions)
            else "no probabilities to calibrate in this mode; the mode score gives them"
        )
        say(f"{model.name}: {why}")
        return None
    truth = [review.label for review, is_known in zip(questions.val, known, strict=True) if is_known]
    n_missing = len(predictions) - len(truth)
    if n_missing and (len(truth) < MIN_VALIDATION_REVIEWS or len(set(truth)) < 2):
        say(f"{model.name}: it answered only {len(truth)} validation reviews, too few to calibrate on")
        return None
    content_free = stack_probabilities(answers.predictions[questions.content_free_rows])
    return fit_calibration(
        [label for label in truth if label is not None],
        shares,
        task,
        content_free=content_free if model.name == "base" or model.has_own_prompt else None,
        target_accuracy=target_accuracy,
        fitted_on={"file": val_path, "sha256": sha256, "missing": n_missing},
        weights=model.facts.get("weights", {}),
    )


def save_calibrations(models: Sequence[ComparedModel], calibrations: Mapping[str, Calibration | None]) -> None:
    """Write calibration.json into the folder of each local model, for engines and serving.

    A stack keeps the one that it was made with, which is of a cross-fit. A folder that cannot be written, such as that
    of a shared base model, keeps no other model from its calibration.
    """
    for model in models:
        calibration, folder = calibrations[model.name], Path(model.name_or_path)
        if calibration is None or model.has_own_prompt or not folder.is_dir():
            continue
        if is_stack(folder):
            say(f"{model.name}: {folder} keeps the calibration that it was made with")
            continue
        former = read_json_object(folder / CALIBRATION_NAME)
        try:
            path = save_calibration(calibration, folder)
        except ConfigError as error:
            say(f"WARNING: {model.name}: its calibration is not saved in {folder} ({error.what})")
            continue
        replaced = f", in place of the one {_describe_former(former)}" if former else ""
        say(f"{model.name}: calibration fitted on {calibration.fitted_on['reviews']} reviews in {path}{replaced}")


def _describe_former(content: Mapping[str, Any]) -> str:
    """Return what a calibration.json that is replaced was fitted on."""
    fitted_on = content.get("fitted_on")
    known = fitted_on if isinstance(fitted_on, dict) else {}
    threshold = content.get("threshold")
    return (
        f"for the task {content.get('task')}, fitted on {known.get('reviews')} reviews of {known.get('file')}"
        f" ({'no threshold' if threshold is None else f'threshold {threshold}'})"
    )
