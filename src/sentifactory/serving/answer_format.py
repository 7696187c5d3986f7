"""Turns a prediction into an answer: calibrated probabilities, label and emoji, or no label below the threshold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.corpus.files.encodings import show_undecodable
from sentifactory.errors import ConfigError
from sentifactory.metrics.calibration import Calibration, find_calibration
from sentifactory.records import Prediction
from sentifactory.task.task import Task

# By label; other labels have none.
EMOJI = {"positive": "\U0001f60a", "negative": "\U0001f61e", "neutral": "\U0001f610"}
CALIBRATED = "calibrated"
PROBABILITY_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer for one text.

    Attributes:
        label: index of the label that the engine gave; the likeliest one, where there are probabilities.
        probabilities: (n_labels,) calibrated where there is a calibration; None from an engine that gives none.
        is_unsure: whether the likeliest label is below the threshold, so that no label is given.
    """

    label: int
    probabilities: tuple[float, ...] | None
    is_unsure: bool

    @property
    def score(self) -> float | None:
        """Probability of the likeliest label."""
        return None if self.probabilities is None else self.probabilities[self.label]


class AnswerFormatter:
    """Turns predictions into decisions, and decisions into JSON.

    Args:
        task: has the names of the labels.
        model: name of the model.
        calibration: corrects the probabilities, or None.
        threshold: below this probability no label is given; None: one is always given.
    """

    def __init__(
        self, task: Task, model: str, calibration: Calibration | None = None, threshold: float | None = None
    ) -> None:
        self.task = task
        self.model = model
        self.calibration = calibration
        self.threshold = threshold

    def describe_calibration(self) -> dict[str, Any] | None:
        """Return the calibration as plain JSON values; None where there is none."""
        return None if self.calibration is None else self.calibration.to_dict()

    def decide(self, prediction: Prediction) -> Decision | None:
        """Return the decision, or None where the model gave no label."""
        if self.calibration is not None:
            prediction = self.calibration.correct(prediction)
        if prediction.label is None:
            return None
        probabilities = prediction.probabilities
        is_unsure = self.threshold is not None and (probabilities is None or max(probabilities) < self.threshold)
        return Decision(prediction.label, probabilities, is_unsure)

    def name_label(self, decision: Decision) -> str | None:
        """Return the name of the label that is given; None below the threshold."""
        return None if decision.is_unsure else self.task.labels[decision.label]

    def to_dict(self, text: str, decision: Decision, latency_s: float) -> dict[str, Any]:
        """Return the answer for one text as plain JSON values."""
        name = self.name_label(decision)
        probabilities = decision.probabilities
        return {
            "text": text,
            "label": name,
            "emoji": EMOJI.get(name) if name is not None else None,
            "score": None if decision.score is None else round(decision.score, PROBABILITY_DIGITS),
            "probabilities": None
            if probabilities is None
            else {
                label: round(value, PROBABILITY_DIGITS)
                for label, value in zip(self.task.labels, probabilities, strict=True)
            },
            "unsure": decision.is_unsure,
            "model": self.model,
            "latency_ms": round(1000 * latency_s, 2),
        }


def name_model(model: str) -> str:
    """Return the name of a model: of its folder or file, or its hub id; no other part of a path is shown.

    Example:
        >>> name_model("saves/gemma-3-270m/freeze/demo"), name_model("org/some-model-that-is-not-here")
        ('demo', 'org/some-model-that-is-not-here')
    """
    path = Path(model).expanduser()
    name = path.resolve().name if path.exists() or path.parent.is_dir() or model.count("/") > 1 else model
    return show_undecodable(name)  # it is written into answers and files


def build_formatter(model: str, task: Task, threshold: str | None, name: str | None = None) -> AnswerFormatter:
    """Return the formatter of a model, with the calibration in its folder.

    Args:
        model: folder, hub id or file.
        task: has the names of the labels.
        threshold: a probability, "calibrated" for the calibration's, or None for no threshold.
        name: of the model in answers; None: the name of its folder.

    Raises:
        ConfigError: when the threshold is invalid, or the calibration cannot be used or has no threshold.
    """
    calibration = find_calibration(model, task)
    return AnswerFormatter(task, name or name_model(model), calibration, read_threshold(threshold, calibration, model))


def read_threshold(option: str | None, calibration: Calibration | None, model: str) -> float | None:
    """Return the probability below which no label is given.

    Raises:
        ConfigError: when the option is not a probability, or there is no calibration with a threshold.
    """
    if option is None:
        return None
    if option == CALIBRATED:
        if calibration is None or calibration.threshold is None:
            raise ConfigError(
                "This model has no calibration with a threshold",
                where=model,
                next_step="fit one with `sentifactory eval compare --mode score --val_path VAL.csv`, or give a number",
            )
        return calibration.threshold
    try:
        value = float(option)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise ConfigError(
            f"{option!r} is not a threshold",
            where="--threshold",
            expected=f"a number above 0 and up to 1, or {CALIBRATED}",
        )
    return value
