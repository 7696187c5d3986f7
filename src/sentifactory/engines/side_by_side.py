"""A first look: a few texts, several models, and what each says with which confidence.

The models answer one after the other, so that one at a time is in memory. A language model is asked in the mode
`score`, which gives probabilities as a classifier does. The name of a model is enough: what it is asked and how its
probabilities are corrected stand in its folder. What a comparison on labelled reviews adds (who is better, and
how sure that is) stands in `sentifactory.evaluation`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sentifactory.corpus.cleaning import clean_text
from sentifactory.corpus.encodings import inspect_text
from sentifactory.corpus.export import clean_as_trained
from sentifactory.corpus.limits import iter_lines
from sentifactory.corpus.readers import find_bad_character, read_reviews, read_texts
from sentifactory.engines.calibration import CalibratedEngine, Calibration
from sentifactory.engines.registry import build_engine, check_engine, split_by_prompt
from sentifactory.engines.tfidf import TfidfEngine
from sentifactory.errors import ConfigError, DataError
from sentifactory.models.published import fetch_published
from sentifactory.models.weights import list_weights
from sentifactory.records import Prediction, Review
from sentifactory.task import Task
from sentifactory.task_choice import choose_task

TFIDF = "TF-IDF"
_PLAIN_WIDTH = 120  # columns where the output is no terminal
_WIDEST_TEXT = 60


def collect_texts(texts: Sequence[str], file: Path | None, task: Task) -> list[Review]:
    """Return the texts that were typed, and after them those of a file; a .txt file holds one a line.

    Raises:
        ConfigError: when there is none, or one of those that were typed is blank.
        DataError: when the file cannot be read.
    """
    reviews = [Review(text) for text in texts]
    for number, text in enumerate(texts, start=1):
        if not clean_text(text)[0] and len(texts) > 1:
            raise ConfigError(f"Text {number} of {len(texts)} is empty", next_step="leave it out")
    if file is not None and file.suffix.lower() == ".txt" and file.is_file():
        reviews += [Review(line) for line in read_lines(file) if clean_text(line)[0]]
    elif file is not None:
        reviews += [review for review in read_texts(file, task) if clean_text(review.text)[0]]
    if not any(clean_text(review.text)[0] for review in reviews):
        raise ConfigError(
            "No text is given", expected="one text or more in quotes, or --file", next_step='add "这家饭店真贴心"'
        )
    return reviews


def read_lines(file: Path) -> list[str]:
    """Return the lines of a text file in any encoding that is recognised.

    Raises:
        DataError: when its encoding is not, or a byte does not fit it.
    """
    text = inspect_text(file)
    with text.open() as stream:
        lines = [line.rstrip("\r\n") for line in iter_lines(stream)]
    for number, line in enumerate(lines, start=1):
        if fault := find_bad_character(line, text.is_sound):
            raise DataError(fault[0].upper() + fault[1:], where=f"{file}, line {number}", next_step="correct the line")
    return lines


def answer_side_by_side(
    reviews: Sequence[Review],
    models: Sequence[str],
    task: str | None = None,
    *,
    engine: str = "auto",
    train_csv: str | None = None,
) -> list[dict[str, Any]]:
    """Return what each model says to each text, as plain JSON values.

    Args:
        reviews: the texts.
        models: folders or hub ids, in the order of the columns.
        task: name or YAML file of what is asked; None asks what the models were taught.
        engine: for all models; `auto` takes the one that fits the model.
        train_csv: adds TF-IDF, trained on these reviews in seconds.

    Raises:
        ConfigError: when no model is given, one is given twice or cannot be used, or they were taught different tasks.
        DataError: when the reviews that TF-IDF learns from cannot be used.
        EngineError: when a model cannot be loaded.
    """
    if not models and train_csv is None:
        raise ConfigError(
            "No model is given", expected="--model FOLDER, as often as there are models, or --train_csv for TF-IDF"
        )
    if len(set(models)) < len(models):
        raise ConfigError("A model is given twice", where="--model", expected="different models")
    asked_about = [replace(review, text=clean_text(review.text)[0]) for review in reviews]  # as training texts are
    columns: list[list[dict[str, Any]]] = []
    places = [find_place(model, engine) for model in models]
    asking, heads = split_by_prompt((engine, place) for place in places)
    chosen = choose_task(task, models=asking, classifiers=heads, data=[train_csv] if train_csv else ())
    asked = chosen.announce().task
    for model, place in zip(models, places, strict=True):
        with build_engine(engine, place, asked, name=Path(model).name, mode="score") as running:
            calibration = running.calibration if isinstance(running, CalibratedEngine) else None
            answers = running.predict(asked_about)
        columns.append([describe_answer(model, answer, asked, calibration) for answer in answers])
    if train_csv is not None:
        with TfidfEngine(asked).fit(clean_as_trained(read_reviews(train_csv, asked), train_csv)) as running:
            columns.append([describe_answer(TFIDF, answer, asked) for answer in running.predict(asked_about)])
    return [
        {"text": review.text, "answers": list(answers)}
        for review, answers in zip(reviews, zip(*columns, strict=True), strict=True)
    ]


def find_place(model: str, engine: str) -> str:
    """Return the folder of a model, fetched from its hub first where it is not here, or its name for the engine.

    Raises:
        ConfigError: when there is no such model, or it cannot be run by this engine.
    """
    if engine.startswith(("http://", "https://")):
        return model
    if Path(model).expanduser().is_dir():
        check_engine(engine, model)
        return model
    folder = fetch_published(model)
    # Old models of a hub have no safetensors: transformers loads those by their name, and refuses code in them.
    return str(folder) if list_weights(folder) else model


def describe_answer(
    model: str, prediction: Prediction, task: Task, calibration: Calibration | None = None
) -> dict[str, Any]:
    """Return label and confidence of an answer as plain JSON values; `is_sure` is None where no threshold is known.

    Example:
        >>> from sentifactory.task import BINARY_SENTIMENT
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
    """Print a table on stdout: a row for each text, a column for each model; '?' marks what is below the threshold."""
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
