"""Corrects the probabilities of a model with the calibration.json in its folder, for every engine.

A calibration turns the probabilities p of the labels into softmax((log p - bias) / temperature). It is valid for one
prompt and for the weights it was fitted on; `metrics.calibration_fit` fits it. Applying it needs no numpy. The file
also holds the bias correction that `metrics.prior_shift` starts from; files of earlier versions have none.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.models.weights import hash_weights
from sentifactory.records import Prediction
from sentifactory.system.atomic import write_json
from sentifactory.system.json_text import read_json, read_json_object
from sentifactory.system.progress import say
from sentifactory.task.task import Task

CALIBRATION_NAME = "calibration.json"
CALIBRATION_VERSION = 1
# A probability of 0 for the true label would make the likelihood of a whole data set 0.
MIN_PROBABILITY = 1e-12


def read_own_calibration(folder: Path, weights: dict[str, str]) -> dict[str, Any] | None:
    """Return the content of calibration.json; None if it is missing or was fitted on other weights."""
    content = read_json_object(folder / CALIBRATION_NAME)
    return content if content is not None and content.get("weights") == weights else None


def rescale(probabilities: Sequence[float], bias: Sequence[float], temperature: float) -> tuple[float, ...]:
    """Return softmax((log p - bias) / temperature) of the probabilities (n_labels,) of one review."""
    scores = [
        (math.log(max(share, MIN_PROBABILITY)) - own) / temperature
        for share, own in zip(probabilities, bias, strict=True)
    ]
    highest = max(scores)
    powers = [math.exp(score - highest) for score in scores]
    return tuple(power / sum(powers) for power in powers)


@dataclass(frozen=True, slots=True)
class BiasCorrection:
    """Temperature and bias of every label, fitted together; `metrics.bias_correction` fits them.

    It changes answers, so that engines do not apply it; `metrics.prior_shift` estimates the shares of the labels among
    other reviews with it.

    Attributes:
        temperature: see `Calibration`.
        bias: (n_labels,) likewise; sums to 0.
        shares: (n_labels,) of the labels among the validation reviews.
        covariance: (1 + n_labels, 1 + n_labels) of 1 / temperature and -bias / temperature.
    """

    temperature: float
    bias: tuple[float, ...]
    shares: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]

    def apply(self, probabilities: Sequence[float]) -> tuple[float, ...]:
        """Return the corrected probabilities of one review, in label order."""
        return rescale(probabilities, self.bias, self.temperature)


@dataclass(frozen=True, slots=True)
class Calibration:
    """The correction of a model's probabilities.

    Attributes:
        method: `temperature`, `contextual` or `batch`; see `metrics.calibration_fit`. Never saved: `prior-shift`; see
            `metrics.prior_shift`.
        temperature: above 1 lowers the confidence, below 1 raises it.
        bias: (n_labels,) subtracted from the log-probabilities; zeros for `temperature`.
        task: name of the task.
        prompt_sha256: hash of prompt, labels and answers, for which the calibration is valid.
        threshold: answers with at least this calibrated confidence reach `target_accuracy` on the validation reviews;
            None where no threshold does.
        target_accuracy: see `threshold`.
        fitted_on: file, sha256 and number of the validation reviews, and the likelihood (nats) before and after.
        weights: SHA-256 of the weights by file name; empty where they are not on this machine.
        bias_correction: for a change of the labels' shares; None in older files, and where it cannot be fitted.
    """

    method: str
    temperature: float
    bias: tuple[float, ...]
    task: str
    prompt_sha256: str
    threshold: float | None
    target_accuracy: float
    fitted_on: dict[str, Any]
    weights: dict[str, str]
    bias_correction: BiasCorrection | None = None

    def apply(self, probabilities: Sequence[float]) -> tuple[float, ...]:
        """Return the corrected probabilities of one review, in label order.

        Example:
            >>> cool = Calibration("temperature", 2.0, (0.0, 0.0), "t", "", None, 0.95, {}, {})
            >>> [round(share, 3) for share in cool.apply((0.9, 0.1))]
            [0.75, 0.25]
        """
        return rescale(probabilities, self.bias, self.temperature)

    def correct(self, prediction: Prediction) -> Prediction:
        """Return a prediction with corrected probabilities; the label changes only if the most probable one does.

        A prediction without probabilities is unchanged, and so are the raw reply and the log-likelihoods.
        """
        before = prediction.probabilities
        if before is None or prediction.label is None:
            return prediction
        after = self.apply(before)
        is_same = after[before.index(max(before))] == max(after)
        label = prediction.label if is_same else after.index(max(after))
        return replace(prediction, label=label, probabilities=after)

    def is_sure(self, probabilities: Sequence[float]) -> bool:
        """Return whether corrected probabilities reach the threshold; False without a threshold."""
        return self.threshold is not None and max(probabilities) >= self.threshold

    def to_dict(self) -> dict[str, Any]:
        """Return the calibration as plain JSON values."""
        return {"version": CALIBRATION_VERSION, **asdict(self)}


def hash_prompt(task: Task) -> str:
    """Return a hash of the prompt and the possible answers."""
    content = [task.prompt_template, list(task.labels), task.answer_key, list(task.answer_values)]
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()


def save_calibration(calibration: Calibration, folder: str | Path) -> Path:
    """Write calibration.json into a model folder; raises what `atomic.write_json` raises."""
    path = Path(folder) / CALIBRATION_NAME
    write_json(path, calibration.to_dict())
    return path


def load_calibration(folder: str | Path, task: Task) -> Calibration | None:
    """Return the calibration of a model folder for a task, or None if none was fitted for this prompt.

    Raises:
        ConfigError: when the file is there and cannot be used.
    """
    path = Path(folder) / CALIBRATION_NAME
    try:
        values = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _describe_unusable(path, str(error)) from error
    try:
        if values.pop("version") != CALIBRATION_VERSION:
            raise _describe_unusable(path, "it has another version")
        correction = _read_bias_correction(values.pop("bias_correction", None), len(values["bias"]))
        calibration = Calibration(
            **{**values, "bias": tuple(map(float, values["bias"])), "bias_correction": correction}
        )
        shares = (calibration.target_accuracy, calibration.threshold or 0.0)
        is_finite = all(map(math.isfinite, (calibration.temperature, *shares, *calibration.bias)))
        is_sound = is_finite and calibration.temperature > 0
        if not isinstance(calibration.fitted_on, dict) or not isinstance(calibration.weights, dict):
            raise ValueError("fitted_on and weights should be objects")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _describe_unusable(path, f"{type(error).__name__}: {error}") from error
    if not is_sound:
        raise _describe_unusable(path, "a temperature must be above 0, and every figure finite")
    if calibration.prompt_sha256 != hash_prompt(task):
        return None
    if len(calibration.bias) != len(task.labels):
        raise _describe_unusable(path, f"it has {len(calibration.bias)} labels")
    return calibration


def _read_bias_correction(values: dict[str, Any] | None, n_labels: int) -> BiasCorrection | None:
    """Return the bias correction; raises KeyError, TypeError or ValueError when it is damaged."""
    if values is None:
        return None
    bias, shares = (tuple(map(float, values[name])) for name in ("bias", "shares"))
    covariance = tuple(tuple(map(float, row)) for row in values["covariance"])
    found = BiasCorrection(float(values["temperature"]), bias, shares, covariance)
    lengths = {len(bias), len(shares), len(covariance) - 1, *(len(row) - 1 for row in covariance)}
    numbers = (found.temperature, *bias, *shares, *(value for row in covariance for value in row))
    if lengths != {n_labels} or not all(map(math.isfinite, numbers)):
        raise ValueError("the bias correction has other labels, or figures that are not finite")
    if found.temperature <= 0 or not all(0 < share < 1 for share in shares):
        raise ValueError("the bias correction has a temperature or a share out of range")
    return found


def _describe_unusable(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"The calibration cannot be used ({why})",
        where=str(path),
        expected="the file as `sentifactory eval compare --val_path` writes it",
        next_step="fit it again, or move the file away",
        code="calibration-unusable",
    )


def find_calibration(model: str, task: Task, weights: dict[str, str] | None = None) -> Calibration | None:
    """Return the calibration in a model's folder if it is for this prompt and these weights, else None.

    Args:
        model: folder; other names of models have no calibration.
        task: what is asked.
        weights: SHA-256 of the weights by file name; None: the files are hashed.

    Raises:
        ConfigError: when the file is there and cannot be used.
    """
    folder = Path(model).expanduser()
    if not model or not folder.is_dir():
        return None
    calibration = load_calibration(folder, task)
    if calibration is None:
        if (folder / CALIBRATION_NAME).is_file():
            say(f"{folder / CALIBRATION_NAME} was fitted for another task or prompt and is not used")
        return None
    if calibration.weights != (hash_weights(folder) if weights is None else weights):
        say(f"{folder / CALIBRATION_NAME} was fitted on other weights and is not used")
        return None
    return calibration
