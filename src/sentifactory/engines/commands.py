"""The command `sentifactory predict`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sentifactory.task.task_choice import TASK_HELP


def predict_texts(
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT ...", help="Texts, each in quotes.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", help="Folder or hub id of a model, or its name at an address; repeat to compare several."
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="More texts: a table with a text column, or a .txt file with one text per line."),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            help="auto (encoder for a classifier, transformers for a language model), vllm, or the address of a vLLM, "
            "llama.cpp or Ollama.",
        ),
    ] = "auto",
    train_csv: Annotated[
        str | None, typer.Option("--train_csv", help="Also show TF-IDF, trained on these labelled reviews in seconds.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", help=TASK_HELP),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the answers, as JSON, on stdout.")] = False,
) -> None:
    """Show the labels and confidences that one or more models predict for texts, side by side.

    Confidences are a classifier's probabilities, or a language model's probabilities of the answers. An encoder
    without a classification head gets a random one, with a warning. The task, temperature and threshold in a model's
    folder are used; answers below the threshold are marked with '?'.
    """
    from sentifactory.engines.side_by_side import answer_side_by_side, collect_texts, print_side_by_side
    from sentifactory.task.task_choice import choose_task

    reviews = collect_texts(texts or [], file, choose_task(task, texts=[file] if file else ()).task)
    rows = answer_side_by_side(reviews, model or [], task, engine=engine, train_csv=train_csv)
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=2))
    else:
        print_side_by_side(rows)
