"""Fits calibrations of a model's probabilities on validation reviews; test reviews are never used.

A calibration turns the probabilities p of the labels into softmax((log p - bias) / temperature); `metrics.calibration`
applies it.

- temperature (Guo et al. 2017): one number; it changes confidences, not answers.
- contextual (Zhao et al. 2021, Calibrate before use): the bias is the model's output for content-free texts.
- batch (Zhou et al. 2024, Batch calibration): the bias is the model's mean probability over unlabelled reviews.

The last two are for an untuned model that prefers one label; they change answers. A bias correction is fitted as well
and kept beside the calibration; engines do not apply it (`metrics.prior_shift` does).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sentifactory.errors import ConfigError
from sentifactory.metrics.calibration import MIN_PROBABILITY, Calibration, hash_prompt
from sentifactory.metrics.reliability import find_confidence, list_nll
from sentifactory.records import Review
from sentifactory.task.task import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Texts without an opinion, for the bias of `contextual`; Zhao et al. use N/A, [MASK] and the empty string.
CONTENT_FREE = ("N/A", "[MASK]", "无")
MIN_VALIDATION_REVIEWS = 30
_LOG_TEMPERATURES = (-4.0, 5.0)


def make_content_free_reviews() -> list[Review]:
    """Return the content-free texts that `contextual` asks about."""
    return [Review(text) for text in CONTENT_FREE]


def fit_temperature(truth: NDArray, log_shares: NDArray) -> float:
    """Return the temperature with the highest likelihood.

    Args:
        truth: (n,) true labels.
        log_shares: (n, n_labels) log-probabilities, up to a constant a row.
    """
    import numpy as np
    from scipy.optimize import minimize_scalar

    def compute_loss(log_temperature: float) -> float:
        return float(list_nll(truth, apply_temperature(log_shares, float(np.exp(log_temperature)))).mean())

    found = minimize_scalar(compute_loss, bounds=_LOG_TEMPERATURES, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def apply_temperature(log_shares: NDArray, temperature: float) -> NDArray:
    """Return softmax(log_shares / temperature), (n, n_labels)."""
    import numpy as np

    scores = log_shares / temperature
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def list_biases(probabilities: NDArray, content_free: NDArray | None) -> dict[str, NDArray]:
    """Return the bias (n_labels,) of each applicable method.

    Args:
        probabilities: (n, n_labels) on the validation reviews.
        content_free: (n_texts, n_labels) on the content-free texts; None where they were not asked.
    """
    import numpy as np

    def log_mean(shares: NDArray) -> NDArray:
        values = np.log(np.clip(shares.mean(axis=0), MIN_PROBABILITY, 1))
        return values - values.mean()

    found = {"temperature": np.zeros(probabilities.shape[1])}
    if content_free is not None:
        found["contextual"] = log_mean(content_free)
        found["batch"] = log_mean(probabilities)
    return found


def check_target_accuracy(target_accuracy: float) -> None:
    """Refuse an accuracy that no threshold can be chosen for.

    Raises:
        ConfigError: when it is not above 0 and at most 1.
    """
    if not 0 < target_accuracy <= 1:
        raise ConfigError(
            f"--target_accuracy is {target_accuracy:g}",
            expected="a share above 0 and up to 1, such as 0.95",
            code="option-value",
        )


def refuse_few(truth: Sequence[int | None], where: str) -> None:
    """Do nothing for validation reviews that a calibration can be fitted on.

    Raises:
        ConfigError: when there are fewer than `MIN_VALIDATION_REVIEWS`, or their labels are all the same.
    """
    if len(truth) < MIN_VALIDATION_REVIEWS or len(set(truth)) < 2:
        raise ConfigError(
            f"{len(truth)} validation reviews with {len(set(truth))} labels are too few to calibrate on",
            where=where,
            expected=f"at least {MIN_VALIDATION_REVIEWS} reviews and two labels",
            code="calibration-too-few",
        )


def fit_calibration(
    truth: Sequence[int],
    probabilities: NDArray,
    task: Task,
    *,
    content_free: NDArray | None,
    target_accuracy: float,
    fitted_on: dict[str, Any],
    weights: dict[str, str],
) -> Calibration:
    """Return the calibration with the highest likelihood on the validation reviews.

    Args:
        truth: (n,) true labels of the validation reviews that got an answer.
        probabilities: (n, n_labels) of these reviews, uncorrected.
        task: what was asked.
        content_free: (n_texts, n_labels) on `CONTENT_FREE`, for an untuned model; None tries temperature only.
        target_accuracy: for the threshold.
        fitted_on: file and sha256 of the validation reviews, and how many got no answer.
        weights: SHA-256 of the weights, by file name.

    Raises:
        ConfigError: when there are fewer than `MIN_VALIDATION_REVIEWS`, or all have the same label.
    """
    import numpy as np

    from sentifactory.metrics.bias_correction import fit_bias_correction
    from sentifactory.metrics.ranking import choose_threshold

    true = np.asarray(truth)
    refuse_few(truth, str(fitted_on.get("file", "")))
    log_shares = np.log(np.clip(probabilities, MIN_PROBABILITY, 1))
    tried = []
    for method, bias in list_biases(probabilities, content_free).items():
        temperature = fit_temperature(true, log_shares - bias)
        corrected = apply_temperature(log_shares - bias, temperature)
        tried.append((float(list_nll(true, corrected).mean()), method, bias, temperature, corrected))
    nll, method, bias, temperature, corrected = min(tried, key=lambda one: one[0])
    answers, confidence = find_confidence(corrected)
    return Calibration(
        method=method,
        temperature=temperature,
        bias=tuple(map(float, bias)),
        task=task.name,
        prompt_sha256=hash_prompt(task),
        threshold=choose_threshold(confidence, answers == true, target_accuracy, MIN_VALIDATION_REVIEWS),
        target_accuracy=target_accuracy,
        fitted_on={
            **fitted_on,
            "reviews": len(true),
            "nll_before": float(list_nll(true, probabilities).mean()),
            "nll_after": nll,
        },
        weights=weights,
        bias_correction=fit_bias_correction(truth, probabilities),
    )
