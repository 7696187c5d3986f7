"""Fits calibrations: how a model's probabilities are to be corrected, so that they can be believed.

A calibration turns the probabilities p of the labels into softmax((log p - bias) / temperature); what one is, and how
engines apply it, stands in `engines.calibration`.

- temperature (Guo et al. 2017): one number; no answer changes, only how sure it is.
- contextual (Zhao et al. 2021, Calibrate before use): the bias is what the model says to a text without content.
- batch (Zhou et al. 2024, Batch calibration): the bias is the model's mean probability over reviews, labels unseen.

The last two are for an untuned model that leans to one label; they change answers. Everything is fitted on validation
reviews; the test reviews are never looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sentifactory.engines.calibration import MIN_PROBABILITY, Calibration, hash_prompt
from sentifactory.errors import ConfigError
from sentifactory.evaluation.reliability import find_confidence, list_nll
from sentifactory.records import Review
from sentifactory.task import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Texts without an opinion, asked for the bias of `contextual`; Zhao et al. use N/A, [MASK] and the empty string.
CONTENT_FREE = ("N/A", "[MASK]", "无")
MIN_VALIDATION_REVIEWS = 30
_LOG_TEMPERATURES = (-4.0, 5.0)


def make_content_free_reviews() -> list[Review]:
    """Return the texts without content that `contextual` asks."""
    return [Review(text) for text in CONTENT_FREE]


def fit_temperature(truth: NDArray, log_shares: NDArray) -> float:
    """Return the temperature with the highest likelihood.

    Args:
        truth: (n,) true labels.
        log_shares: (n, n_labels) log-probabilities, up to a constant a row.
    """
    import numpy as np
    from scipy.optimize import minimize_scalar

    def lose(log_temperature: float) -> float:
        return float(list_nll(truth, soften(log_shares, float(np.exp(log_temperature)))).mean())

    found = minimize_scalar(lose, bounds=_LOG_TEMPERATURES, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def soften(log_shares: NDArray, temperature: float) -> NDArray:
    """Return softmax(log_shares / temperature), (n, n_labels)."""
    import numpy as np

    scores = log_shares / temperature
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def list_biases(probabilities: NDArray, content_free: NDArray | None) -> dict[str, NDArray]:
    """Return the bias (n_labels,) of each method that can be had.

    Args:
        probabilities: (n, n_labels) on the validation reviews.
        content_free: (texts, n_labels) on the texts without content; None where they were not asked.
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
        probabilities: (n, n_labels) on them, uncorrected.
        task: whose prompt was asked.
        content_free: (texts, n_labels) on `CONTENT_FREE`, for an untuned model; None tries temperature alone.
        target_accuracy: for the threshold.
        fitted_on: file and sha256 of the validation reviews, and how many got no answer.
        weights: SHA-256 of the weights, by file name.

    Raises:
        ConfigError: when there are fewer than `MIN_VALIDATION_REVIEWS`, or their labels are all the same.
    """
    import numpy as np

    from sentifactory.evaluation.ranking import choose_threshold

    true = np.asarray(truth)
    if len(true) < MIN_VALIDATION_REVIEWS or len(set(truth)) < 2:
        raise ConfigError(
            f"{len(true)} validation reviews of {len(set(truth))} labels are too few to calibrate on",
            where=str(fitted_on.get("file", "")),
            expected=f"at least {MIN_VALIDATION_REVIEWS} reviews and two labels",
        )
    log_shares = np.log(np.clip(probabilities, MIN_PROBABILITY, 1))
    tried = []
    for method, bias in list_biases(probabilities, content_free).items():
        temperature = fit_temperature(true, log_shares - bias)
        corrected = soften(log_shares - bias, temperature)
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
    )
