"""Corrects the probabilities of a model by the calibration.json in its folder, whichever engine runs it.

A calibration turns the probabilities p of the labels into softmax((log p - bias) / temperature). It belongs to one
prompt and to the weights that it was fitted for; `evaluation.calibration` fits it. Applying it needs no numpy.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sentifactory.atomic import write_json
from sentifactory.engines.base import Engine, OnAnswer
from sentifactory.errors import ConfigError
from sentifactory.models.weights import hash_weights
from sentifactory.progress import say
from sentifactory.records import Prediction, Review
from sentifactory.task import Task

CALIBRATION_NAME = "calibration.json"
CALIBRATION_VERSION = 1
# A probability of 0 for what then happens would make the likelihood of a whole set 0.
MIN_PROBABILITY = 1e-12


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a model's probabilities are corrected.

    Attributes:
        method: `temperature`, `contextual` or `batch`; see `evaluation.calibration`.
        temperature: above 1 makes the model less sure, below 1 surer.
        bias: (n_labels,) subtracted from the log-probabilities; zeros for `temperature`.
        task: name of the task.
        prompt_sha256: of prompt, labels and answers; another prompt needs another calibration.
        threshold: answers of at least this calibrated confidence reach `target_accuracy` on the validation reviews;
            None where none does.
        target_accuracy: see `threshold`.
        fitted_on: file, sha256 and number of the validation reviews, and the likelihood (nats) before and after.
        weights: SHA-256 of the weights it belongs to, by file name; empty where they are not on this machine.
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

    def apply(self, probabilities: Sequence[float]) -> tuple[float, ...]:
        """Return the corrected probabilities of one review, in label order.

        Example:
            >>> cool = Calibration("temperature", 2.0, (0.0, 0.0), "t", "", None, 0.95, {}, {})
            >>> [round(share, 3) for share in cool.apply((0.9, 0.1))]
            [0.75, 0.25]
        """
        scores = [
            (math.log(max(share, MIN_PROBABILITY)) - bias) / self.temperature
            for share, bias in zip(probabilities, self.bias, strict=True)
        ]
        highest = max(scores)
        powers = [math.exp(score - highest) for score in scores]
        return tuple(power / sum(powers) for power in powers)

    def correct(self, prediction: Prediction) -> Prediction:
        """Return a prediction with corrected probabilities; the label changes only where the likeliest one does.

        One without probabilities (free text, a review that could not be asked) stays as it is, and so do the raw reply
        and the log-likelihoods.
        """
        before = prediction.probabilities
        if before is None or prediction.label is None:
            return prediction
        after = self.apply(before)
        is_same = after[before.index(max(before))] == max(after)
        label = prediction.label if is_same else after.index(max(after))
        return replace(prediction, label=label, probabilities=after)

    def is_sure(self, probabilities: Sequence[float]) -> bool:
        """Return whether corrected probabilities reach the threshold; without a threshold no answer does."""
        return self.threshold is not None and max(probabilities) >= self.threshold

    def to_dict(self) -> dict[str, Any]:
        """Return the calibration as plain JSON values."""
        return {"version": CALIBRATION_VERSION, **asdict(self)}


def hash_prompt(task: Task) -> str:
    """Return a hash of all that the model is shown and may answer."""
    essence = [task.prompt_template, list(task.labels), task.answer_key, list(task.answer_values)]
    return hashlib.sha256(json.dumps(essence, ensure_ascii=False).encode()).hexdigest()


def save_calibration(calibration: Calibration, folder: str | Path) -> Path:
    """Write calibration.json beside a checkpoint; raises what `atomic.write_json` raises."""
    path = Path(folder) / CALIBRATION_NAME
    write_json(path, calibration.to_dict())
    return path


def load_calibration(folder: str | Path, task: Task) -> Calibration | None:
    """Return the calibration of a model folder for a task, or None where none was fitted for this prompt.

    Raises:
        ConfigError: when the file is there and cannot be used.
    """
    path = Path(folder) / CALIBRATION_NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise _describe_unusable(path, str(error)) from error
    try:
        if values.pop("version") != CALIBRATION_VERSION:
            raise _describe_unusable(path, "it is of another version")
        calibration = Calibration(**{**values, "bias": tuple(map(float, values["bias"]))})
        is_sound = calibration.temperature > 0 and all(map(math.isfinite, calibration.bias))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _describe_unusable(path, f"{type(error).__name__}: {error}") from error
    if not is_sound:
        raise _describe_unusable(path, "a temperature must be above 0 and a bias finite")
    if calibration.prompt_sha256 != hash_prompt(task):
        return None
    if len(calibration.bias) != len(task.labels):
        raise _describe_unusable(path, f"it has {len(calibration.bias)} labels")
    return calibration


def _describe_unusable(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"The calibration cannot be used ({why})",
        where=str(path),
        expected="the file as `sentifactory eval compare --val_path` writes it",
        next_step="remove the file, or fit it again",
    )


def find_calibration(model: str, task: Task, weights: dict[str, str] | None = None) -> Calibration | None:
    """Return the calibration that lies in a model's folder and fits prompt and weights; None where there is none.

    Args:
        model: folder, or whatever else names a model, which then has none.
        task: what is asked.
        weights: SHA-256 of the weights by file name, where they are known; else the files are hashed.

    Raises:
        ConfigError: when the file is there and cannot be used.
    """
    folder = Path(model).expanduser()
    calibration = load_calibration(folder, task) if model and folder.is_dir() else None
    if calibration is None:
        return None
    if calibration.weights != (hash_weights(folder) if weights is None else weights):
        say(f"{folder / CALIBRATION_NAME} was fitted for other weights and is not used")
        return None
    return calibration


class CalibratedEngine:
    """An engine whose probabilities are corrected on their way out.

    Attributes:
        engine: answers; it is closed with this one.
        calibration: corrects; its threshold says which of the corrected answers are sure.
    """

    def __init__(self, engine: Engine, calibration: Calibration) -> None:
        self.name = engine.name
        self.calibration = calibration
        self.engine = engine

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        """Return the corrected answers; raises what the engine raises."""

        def tell(position: int, prediction: Prediction) -> None:
            if on_answer is not None:
                on_answer(position, self.calibration.correct(prediction))

        return [self.calibration.correct(prediction) for prediction in self.engine.predict(reviews, tell)]

    def close(self) -> None:
        """Close the engine; may be called twice."""
        self.engine.close()

    def __enter__(self) -> Self:
        """Make the engine ready."""
        self.engine.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the engine."""
        self.engine.__exit__(kind, error, traceback)
