"""The command `sentifactory model probe`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sentifactory.task.task_choice import TASK_HELP


def probe_model(
    model: Annotated[str, typer.Argument(help="Folder or hub id of a language model.")],
    csv_path: Annotated[
        str, typer.Option("--csv_path", help="Labelled training or validation reviews, never those to test on.")
    ],
    task: Annotated[str | None, typer.Option("--task", help=TASK_HELP)] = None,
    max_samples: Annotated[int, typer.Option("--max_samples", help="Most reviews to look at.")] = 300,
    seed: Annotated[int, typer.Option("--seed", help="Of the sample, and of the folds.")] = 42,
    output_file: Annotated[
        Path | None, typer.Option("--output_file", help="Draw the picture into this file, .png or .svg.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else.")
    ] = False,
) -> None:
    """Say how many layers of a model a task needs, and how many of them to train.

    One forward pass reads the hidden states of every layer at the token before the label; for each layer a logistic
    regression is cross-validated on them. `sentifactory model cut` then makes a model of the recommended layers.
    """
    from sentifactory.system.command_line import describe_next
    from sentifactory.training.depth.depth_probe import ProbeOptions, probe_depth
    from sentifactory.training.depth.depth_report import print_depth, suggest_cut

    result = probe_depth(ProbeOptions(model, csv_path, task, max_samples, seed, output_file))
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False, indent=2))
        return
    print_depth(result)
    typer.echo(describe_next(*suggest_cut(result, model, csv_path, task, max_samples, seed)))
