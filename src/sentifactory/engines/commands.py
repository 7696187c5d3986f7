"""The command of this room: `sentifactory predict`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sentifactory.task_choice import TASK_HELP


def predict_texts(
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT ...", help="Texts, each in quotes.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="Folder or hub id of a model. Give it again for models to compare with."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="More texts: a table with a text column, or a .txt with one a line."),
    ] = None,
    engine: Annotated[
        str,
        typer.Option("--engine", help="auto: encoder for a classifier, transformers for a language model; or vllm."),
    ] = "auto",
    train_csv: Annotated[
        str | None, typer.Option("--train_csv", help="Adds TF-IDF, trained on these labelled reviews in seconds.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", help=TASK_HELP),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the answers as JSON on stdout, and nothing else.")
    ] = False,
) -> None:
    """Show label and confidence that one or more models give to a text, side by side, before and after tuning.

    A classifier gives its probabilities; a language model those of the words of each label. An encoder without a
    classifier is asked with a random head, and that is said. The task, temperature and threshold in a model's folder
    are used; an answer below the threshold is marked with '?'.
    """
    from sentifactory.engines.side_by_side import answer_side_by_side, collect_texts, print_side_by_side
    from sentifactory.task_choice import choose_task

    reviews = collect_texts(texts or [], file, choose_task(task, texts=[file] if file else ()).task)
    rows = answer_side_by_side(reviews, model or [], task, engine=engine, train_csv=train_csv)
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=2))
    else:
        print_side_by_side(rows)
