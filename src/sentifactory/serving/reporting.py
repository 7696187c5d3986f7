"""From a prediction to what the caller is told: calibrated probabilities, label, emoji, or no label where unsure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.corpus.encodings import show_undecodable
from sentifactory.engines.calibration import Calibration, find_calibration
from sentifactory.errors import ConfigError
from sentifactory.records import Prediction
from sentifactory.task import Task

# By the label's name; labels of other names have none.
EMOJI = {"positive": "\U0001f60a", "negative": "\U0001f61e", "neutral": "\U0001f610"}
CALIBRATED = "calibrated"
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said about one text.

    Attributes:
        label: index of the label that the engine answered; the likeliest one, where there are probabilities.
        probabilities: (n_labels,) calibrated where there is a calibration; None from an engine that gives none.
        is_unsure: whether the likeliest label stays below the threshold, so that no label is given.
    """

    label: int
    probabilities: tuple[float, ...] | None
    is_unsure: bool

    @property
    def score(self) -> float | None:
        """Probability of the likeliest label."""
        return None if self.probabilities is None else self.probabilities[self.label]


class Reporter:
    """Turns predictions into verdicts, and verdicts into JSON.

    Args:
        task: names the labels.
        model: what the model is called.
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
        """Return the calibration as plain JSON values; None where the probabilities stay as they are."""
        return None if self.calibration is None else self.calibration.to_dict()

    def judge(self, prediction: Prediction) -> Verdict | None:
        """Return the verdict, or None where the model stated no label."""
        if self.calibration is not None:
            prediction = self.calibration.correct(prediction)
        if prediction.label is None:
            return None
        shares = prediction.probabilities
        is_unsure = self.threshold is not None and (shares is None or max(shares) < self.threshold)
        return Verdict(prediction.label, shares, is_unsure)

    def describe(self, text: str, verdict: Verdict, latency_s: float) -> dict[str, Any]:
        """Return the JSON for one text."""
        name = None if verdict.is_unsure else self.task.labels[verdict.label]
        shares = verdict.probabilities
        return {
            "text": text,
            "label": name,
            "emoji": EMOJI.get(name) if name is not None else None,
            "score": None if verdict.score is None else round(verdict.score, _DIGITS),
            "probabilities": None
            if shares is None
            else {label: round(share, _DIGITS) for label, share in zip(self.task.labels, shares, strict=True)},
            "unsure": verdict.is_unsure,
            "model": self.model,
            "latency_ms": round(1000 * latency_s, 2),
        }


def name_model(model: str) -> str:
    """Return what a model is called: the name of its folder or file, or its hub id; no other part of a path is told.

    Example:
        >>> name_model("saves/gemma-3-270m/freeze/demo"), name_model("org/some-model-that-is-not-here")
        ('demo', 'org/some-model-that-is-not-here')
    """
    place = Path(model).expanduser()
    called = place.resolve().name if place.exists() or place.parent.is_dir() or model.count("/") > 1 else model
    return show_undecodable(called)  # it is written into answers and files


def build_reporter(model: str, task: Task, threshold: str | None, name: str | None = None) -> Reporter:
    """Return the reporter of a model with the calibration that lies beside it.

    Args:
        model: folder, hub id or file.
        task: names the labels.
        threshold: a probability, "calibrated" for the one that the calibration found, or None for no threshold.
        name: what the model is called; None: as its folder.

    Raises:
        ConfigError: when the threshold is none, or the calibration cannot be used or has no threshold.
    """
    called = name or name_model(model)
    calibration = find_calibration(model, task)
    return Reporter(task, called, calibration, read_threshold(threshold, calibration, model))


def read_threshold(wish: str | None, calibration: Calibration | None, model: str) -> float | None:
    """Return the probability below which no label is given.

    Raises:
        ConfigError: when the wish is no probability, or names a calibration that has none.
    """
    if wish is None:
        return None
    if wish == CALIBRATED:
        if calibration is None or calibration.threshold is None:
            raise ConfigError(
                "There is no calibration with a threshold beside this model",
                where=model,
                next_step="fit one with `sentifactory eval compare --mode score --val_path VAL.csv`, or give a number",
            )
        return calibration.threshold
    try:
        value = float(wish)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise ConfigError(
            f"{wish!r} is no threshold", where="--threshold", expected=f"a number above 0 and up to 1, or {CALIBRATED}"
        )
    return value
