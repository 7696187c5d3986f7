"""Adapts the answers of every entry of a ladder alike to the labels' shares among the test reviews.

Each entry also answers the validation reviews, on which its bias correction is fitted in the same way, whatever
calibration lies in its folder. `metrics.prior_shift` says how the shares are estimated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sentifactory.bilingual import ModelNames, Sentence
from sentifactory.engines.local.stack_folder import is_fitted_on
from sentifactory.errors import ConfigError
from sentifactory.evaluation.compare_options import refuse_without_probabilities
from sentifactory.evaluation.ladder.ladder_entries import LadderInputs, LadderOptions
from sentifactory.evaluation.report import adaptation_words
from sentifactory.evaluation.scoring.adapted_scores import AdaptedScores, adapt_scores
from sentifactory.evaluation.scoring.scored_predictions import find_cross_fitted
from sentifactory.metrics.calibration import Calibration
from sentifactory.metrics.calibration_fit import MIN_VALIDATION_REVIEWS, fit_calibration, refuse_few
from sentifactory.metrics.probability_metrics import find_known, stack_probabilities
from sentifactory.records import Prediction, Review


def check_adaptation_options(options: LadderOptions) -> None:
    """Refuse, before files are read, options with which not every entry can be adapted alike.

    Raises:
        ConfigError: when there are no probabilities or no validation reviews, or these are of no use.
    """
    if options.adapt_prior:
        refuse_without_probabilities(options.mode)
    if options.adapt_prior != (options.val_path is not None):
        raise ConfigError(
            "--adapt_prior and --val_path go together: every model's correction is fitted on the validation reviews",
            where="eval ladder",
            next_step="give both, or neither",
            code="option-missing",
        )


def check_adaptation(options: LadderOptions, val: list[Review]) -> None:
    """Refuse, before any model is asked, too few validation reviews.

    Raises:
        ConfigError: when no correction can be fitted on them.
    """
    if options.adapt_prior:
        refuse_few([review.label for review in val], str(options.val_path))


def adapt_entry(
    predictions: list[Prediction],
    val_predictions: list[Prediction],
    inputs: LadderInputs,
    val_sha256: str,
    target_accuracy: float,
    model: str | None = None,
) -> AdaptedScores:
    """Return what adapting does for an entry.

    Args:
        predictions: (n_test,) of the entry, uncorrected.
        val_predictions: (n_val,) of the same engine, likewise.
        inputs: of the ladder.
        val_sha256: of the file of validation reviews.
        target_accuracy: of the threshold, which is of no effect here.
        model: folder of a stack; one that was fitted on the same validation reviews keeps its own calibration.
    """
    if model is not None and is_fitted_on(model, val_sha256):
        calibration = find_cross_fitted(model, inputs.task, val_sha256)
    else:
        calibration = _fit(val_predictions, inputs, val_sha256, target_accuracy)
    return adapt_scores(predictions, inputs.test, calibration, inputs.task, inputs.options.seed)


def _fit(
    predictions: list[Prediction], inputs: LadderInputs, val_sha256: str, target_accuracy: float
) -> Calibration | None:
    """Return a calibration with a bias correction; None where too few validation reviews have probabilities."""
    shares, known = stack_probabilities(predictions), find_known(predictions)
    truth = [
        review.label
        for review, is_known in zip(inputs.val, known, strict=True)
        if is_known and review.label is not None
    ]
    if shares is None or len(truth) < MIN_VALIDATION_REVIEWS or len(set(truth)) < 2:
        return None
    file = str(inputs.options.val_path)
    return fit_calibration(
        truth,
        shares,
        inputs.task,
        content_free=None,
        target_accuracy=target_accuracy,
        fitted_on={"file": file, "sha256": val_sha256, "missing": len(predictions) - len(truth)},
        weights={},
    )


def build_adapted(ladder: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return headline and table of the adapted answers for page, Markdown and terminal; None where not asked for."""
    if "adapted" not in ladder:
        return None
    entries = {key: ladder["rungs"][key] for key in ladder["adapted"]["models"]}
    titles = {key: Sentence(**entry["title"]) for key, entry in entries.items()}
    names = {key: ModelNames(title, title, title.en) for key, title in titles.items()}
    result = {"models": entries, "adapted": ladder["adapted"], "data": ladder["data"]}
    return adaptation_words.build_adapted([result], ladder["task"]["labels"], names)


def describe_adaptation(
    adapted: Mapping[str, AdaptedScores], tests: Mapping[str, Any], reference: str
) -> dict[str, Any]:
    """Return the adaptations and their comparisons with the reference as plain JSON values."""
    return {
        "models": {key: one.to_dict() for key, one in adapted.items()},
        "paired_tests": {f"{key}_vs_{reference}": test.to_dict() for key, test in tests.items()},
    }
