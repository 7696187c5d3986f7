"""A first look: a few texts, several models, and what each says with which confidence.

The models answer one after the other, so that one at a time is in memory. A language model is asked in the mode
`score`, which gives probabilities as a classifier does. What a comparison on labelled reviews adds (who is better, and
how sure that is) stands in `sentifactory.evaluation`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentifactory.corpus.readers import read_reviews, read_texts
from sentifactory.engines.registry import build_engine, check_engine
from sentifactory.engines.tfidf import TfidfEngine
from sentifactory.errors import ConfigError
from sentifactory.records import Prediction, Review
from sentifactory.task import Task

TFIDF = "TF-IDF"
_PLAIN_WIDTH = 120  # columns where the output is no terminal
_WIDEST_TEXT = 60


def collect_texts(texts: Sequence[str], file: Path | None, task: Task) -> list[Review]:
    """Return the texts that were typed, and after them those of a file; a .txt file holds one a line.

    Raises:
        ConfigError: when there is none.
        DataError: when the file cannot be read.
    """
    reviews = [Review(text) for text in texts]
    if file is not None and file.suffix.lower() == ".txt" and file.is_file():
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        reviews += [Review(line) for line in lines if line.strip()]
    elif file is not None:
        reviews += [review for review in read_texts(file, task) if review.text.strip()]
    if not any(review.text.strip() for review in reviews):
        raise ConfigError(
            "No text is given", expected="one text or more in quotes, or --file", next_step='add "这家饭店真贴心"'
        )
    return reviews


def answer_side_by_side(
    reviews: Sequence[Review], models: Sequence[str], task: Task, *, engine: str = "auto", train_csv: str | None = None
) -> list[dict[str, Any]]:
    """Return what each model says to each text, as plain JSON values.

    Args:
        reviews: the texts.
        models: folders or hub ids, in the order of the columns.
        task: says which labels there are.
        engine: for all models; `auto` takes the one that fits the model.
        train_csv: adds TF-IDF, trained on these reviews in seconds.

    Raises:
        ConfigError: when no model is given, one is given twice, or one cannot be used.
        EngineError: when a model cannot be loaded.
    """
    if not models and train_csv is None:
        raise ConfigError(
            "No model is given", expected="--model FOLDER, as often as there are models, or --train_csv for TF-IDF"
        )
    if len(set(models)) < len(models):
        raise ConfigError("A model is given twice", where="--model", expected="different models")
    for model in models:
        check_engine(engine, model)
    answers = {}
    for model in models:
        with build_engine(engine, model, task, name=Path(model).name, mode="score") as running:
            answers[model] = running.predict(reviews)
    if train_csv is not None:
        with TfidfEngine(task).fit(read_reviews(train_csv, task)) as running:
            answers[TFIDF] = running.predict(reviews)
    return [
        {"text": review.text, "answers": [describe_answer(name, found[at], task) for name, found in answers.items()]}
        for at, review in enumerate(reviews)
    ]


def describe_answer(model: str, prediction: Prediction, task: Task) -> dict[str, Any]:
    """Return label and confidence of an answer as plain JSON values.

    Example:
        >>> from sentifactory.task import BINARY_SENTIMENT
        >>> describe_answer("m", Prediction(1, probabilities=(0.25, 0.75)), BINARY_SENTIMENT)["confidence"]
        0.75
    """
    shares = prediction.probabilities
    return {
        "model": model,
        "label": None if prediction.label is None else task.labels[prediction.label],
        "confidence": max(shares) if shares else None,
        "probabilities": dict(zip(task.labels, shares, strict=True)) if shares else None,
    }


def print_side_by_side(rows: Sequence[dict[str, Any]]) -> None:
    """Print a table on stdout: a row for each text, a column for each model."""
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
    return answer["label"] + (f" {answer['confidence']:.4f}" if answer["confidence"] is not None else "")
