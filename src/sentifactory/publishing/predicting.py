"""Asks a model by its name alone: what it is asked, how sure it may be and how it is run stand in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sentifactory.engines.base import Mode
from sentifactory.engines.registry import build_engine
from sentifactory.errors import ConfigError
from sentifactory.evaluation.calibration import Calibration, load_calibration
from sentifactory.evaluation.provenance import hash_weights
from sentifactory.model_task import read_model_task
from sentifactory.models.published import fetch_published
from sentifactory.progress import say
from sentifactory.publishing.publish import is_classifier
from sentifactory.records import Prediction, Review
from sentifactory.task import BINARY_SENTIMENT, Task
from sentifactory.task_files import load_task


def predict_texts(
    model: str, texts: Sequence[str], *, task_name: str | None = None, engine: str | None = None, mode: Mode = "score"
) -> list[dict[str, Any]]:
    """Return for each text its label, probabilities (calibrated where the folder says how) and whether it is sure.

    Args:
        model: a folder, or owner/name on a hub.
        texts: reviews.
        task_name: name or YAML file of a task; None takes the one in the model's folder, else the built-in one.
        engine: kind of engine; None chooses by the model.
        mode: how a language model is asked.

    Raises:
        ConfigError: when model, task or engine cannot be used.
        EngineError: when the model cannot be run.
    """
    if not texts or not all(text.strip() for text in texts):
        raise ConfigError("There is no text to read", expected="at least one review, none of them empty")
    folder = fetch_published(model)
    task = load_task(task_name) if task_name else read_model_task(folder) or BINARY_SENTIMENT
    calibration = load_calibration(folder, task)
    if calibration is not None and calibration.weights != hash_weights(folder):
        say(f"{model}: its calibration.json was fitted for other weights and is not used")
        calibration = None
    kind = engine or ("encoder" if is_classifier(folder) else "transformers")
    with build_engine(kind, str(folder), task, name=model, mode=mode) as running:
        answers = running.predict([Review(text) for text in texts])
    return [describe_answer(text, one, task, calibration) for text, one in zip(texts, answers, strict=True)]


def describe_answer(text: str, answer: Prediction, task: Task, calibration: Calibration | None) -> dict[str, Any]:
    """Return an answer as plain JSON values; `is_sure` is None where no threshold is known."""
    shares, label, is_sure = answer.probabilities, answer.label, None
    if shares is not None and calibration is not None:
        shares = calibration.apply(shares)
        label = shares.index(max(shares))
        is_sure = calibration.is_sure(shares) if calibration.threshold is not None else None
    return {
        "text": text,
        "label": task.labels[label] if label is not None else None,
        "probabilities": dict(zip(task.labels, shares, strict=True)) if shares is not None else None,
        "is_sure": is_sure,
        "raw": answer.raw,
    }
