"""Shows what several models predict for a few texts, with their confidences (`sentifactory predict`).

The models run one after the other, so that one at a time is in memory. Language models are asked in mode `score`,
which gives probabilities like a classifier's. Task and calibration come from each model's folder. To find out which
model is better, compare them on labelled reviews (`sentifactory.evaluation`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sentifactory.clean_text import clean_text
from sentifactory.corpus.dataset.dataset_files import clean_as_trained
from sentifactory.corpus.files.encodings import inspect_text
from sentifactory.corpus.files.limits import iter_lines
from sentifactory.corpus.reading.review_files import find_bad_character, read_reviews, read_texts
from sentifactory.engines.local.baselines import TfidfEngine
from sentifactory.engines.registry import CalibratedEngine, build_engine, check_engine, split_by_prompt
from sentifactory.errors import ConfigError, DataError
from sentifactory.metrics.calibration import Calibration
from sentifactory.models.hub import fetch_from_hub
from sentifactory.models.weights import list_weights
from sentifactory.records import Prediction, Review
from sentifactory.task.task import Task
from sentifactory.task.task_choice import choose_task

TFIDF = "TF-IDF"
_PLAIN_WIDTH = 120  # columns if the output is not a terminal
_WIDEST_TEXT = 60


def collect_texts(texts: Sequence[str], file: Path | None, task: Task) -> list[Review]:
    """Return the texts of the command line, then those of a file; a .txt file has one per line.

    Raises:
        ConfigError: when there are no texts, or one on the command line is empty or invalid.
        DataError: when the file cannot be read.
    """
    reviews = [Review(text) for text in texts]
    for number, text in enumerate(texts, start=1):
        if not clean_text(text)[0] and len(texts) > 1:
            raise ConfigError(f"Text {number} of {len(texts)} is empty", next_step="remove it", code="texts")
        if fault := find_bad_character(text, is_sound=False):
            raise ConfigError(f"Text {number} is invalid: {fault}", next_step="correct the text", code="texts")
    if file is not None and file.suffix.lower() == ".txt" and file.is_file():
        reviews += [Review(line) for line in read_lines(file) if clean_text(line)[0]]
    elif file is not None:
        reviews += [review for review in read_texts(file, task) if clean_text(review.text)[0]]
    if not any(clean_text(review.text)[0] for review in reviews):
        raise ConfigError(
            "No text given",
            expected="one or more texts in quotes, or --file",
            next_step='add "这家饭店真贴心"',
            code="texts",
        )
    return reviews


def read_lines(file: Path) -> list[str]:
    """Return the lines of a text file in any recognised encoding.

    Raises:
        DataError: when the encoding is unknown, or a byte is invalid in it.
    """
    text = inspect_text(file)
    with text.open() as stream:
        lines = [line.rstrip("\r\n") for line in iter_lines(stream)]
    for number, line in enumerate(lines, start=1):
        if fault := find_bad_character(line, text.is_sound):
            raise DataError(
                fault[0].upper() + fault[1:],
                where=f"{file}, line {number}",
                next_step="correct the line",
                code="texts",
            )
    return lines


def answer_side_by_side(
    reviews: Sequence[Review],
    models: Sequence[str],
    task: str | None = None,
    *,
    engine: str = "auto",
    train_csv: str | None = None,
) -> list[dict[str, Any]]:
    """Return each model's answer to each text, as JSON values.

    Args:
        reviews: the texts.
        models: folders or hub ids, in the order of the columns.
        task: name or YAML file of the task; None: the task that the models were trained on.
        engine: for all models; `auto` picks the one that fits each model.
        train_csv: adds TF-IDF, trained on these reviews in seconds.

    Raises:
        ConfigError: when no model is given, one is given twice or is unusable, or their tasks differ.
        DataError: when TF-IDF's training reviews cannot be used.
        EngineError: when a model cannot be loaded.
    """
    if not models and train_csv is None:
        raise ConfigError(
            "No model given", expected="one or more --model FOLDER, or --train_csv for TF-IDF", code="models-chosen"
        )
    if len(set(models)) < len(models):
        raise ConfigError("A model is given twice", where="--model", expected="different models", code="models-chosen")
    cleaned = [replace(review, text=clean_text(review.text)[0]) for review in reviews]  # like training texts
    columns: list[list[dict[str, Any]]] = []
    places = [find_place(model, engine) for model in models]
    language_models, classifiers = split_by_prompt((engine, place) for place in places)
    chosen = choose_task(task, models=language_models, classifiers=classifiers, data=[train_csv] if train_csv else ())
    asked = chosen.announce().task
    for model, place in zip(models, places, strict=True):
        with build_engine(engine, place, asked, name=Path(model).name, mode="score") as running:
            calibration = running.calibration if isinstance(running, CalibratedEngine) else None
            answers = running.predict(cleaned)
        columns.append([describe_answer(model, answer, asked, calibration) for answer in answers])
    if train_csv is not None:
        with TfidfEngine(asked).fit(clean_as_trained(read_reviews(train_csv, asked), train_csv)) as running:
            columns.append([describe_answer(TFIDF, answer, asked) for answer in running.predict(cleaned)])
    return [
        {"text": review.text, "answers": list(answers)}
        for review, answers in zip(reviews, zip(*columns, strict=True), strict=True)
    ]


def find_place(model: str, engine: str) -> str:
    """Return a model's folder, fetched from the hub if necessary, or its name for the engine.

    Raises:
        ConfigError: when the model does not exist, or this engine cannot run it.
    """
    if engine.startswith(("http://", "https://")):
        return model
    if Path(model).expanduser().is_dir():
        check_engine(engine, model)
        return model
    folder = fetch_from_hub(model)
    # Old hub models have no safetensors: transformers loads them by name, and refuses code in them.
    return str(folder) if list_weights(folder) else model


def describe_answer(
    model: str, prediction: Prediction, task: Task, calibration: Calibration | None = None
) -> dict[str, Any]:
    """Return label and confidence of an answer as JSON values; `is_sure` is None without a threshold.

    Example:
        >>> from sentifactory.task.task import BINARY_SENTIMENT
        >>> describe_answer("m", Prediction(1, probabilities=(0.25, 0.75)), BINARY_SENTIMENT)["confidence"]
        0.75
    """
    shares = prediction.probabilities
    is_sure = None
    if shares is not None and calibration is not None and calibration.threshold is not None:
        is_sure = calibration.is_sure(shares)
    return {
        "model": model,
        "label": None if prediction.label is None else task.labels[prediction.label],
        "confidence": max(shares) if shares else None,
        "probabilities": dict(zip(task.labels, shares, strict=True)) if shares else None,
        "is_sure": is_sure,
    }


def print_side_by_side(rows: Sequence[dict[str, Any]]) -> None:
    """Print a table on stdout: a row per text, a column per model; '?' marks answers below the threshold."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False, markup=False)
    table = Table()
    table.add_column("text", max_width=_WIDEST_TEXT, overflow="fold")
    for answer in rows[0]["answers"]:
        table.add_column(answer["model"], justify="right", overflow="fold")
    for row in rows:
        table.add_row(row["text"], *map(_show_answer, row["answers"]))
    console.print(table)


def _show_answer(answer: dict[str, Any]) -> str:
    if answer["label"] is None:
        return "unparsed"
    share = f" {answer['confidence']:.4f}" if answer["confidence"] is not None else ""
    return answer["label"] + share + (" ?" if answer["is_sure"] is False else "")
