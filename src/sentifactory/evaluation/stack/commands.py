"""The command `sentifactory model stack`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sentifactory.task.task_choice import TASK_HELP


def stack_models(
    model: Annotated[str, typer.Argument(help="Folder of a tuned model: a language model or a classifier.")],
    train_csv: Annotated[str, typer.Option("--train_csv", help="Training reviews, from which TF-IDF learns.")],
    val_path: Annotated[
        str,
        typer.Option("--val_path", help="Validation reviews; combination and calibration are fitted on them."),
    ],
    output_dir: Annotated[Path, typer.Option("--output_dir", help="The folder of the stack, a new one.")],
    engine: Annotated[
        str, typer.Option("--engine", help="Engine of the model: vllm, transformers, encoder, onnx, or auto.")
    ] = "auto",
    task: Annotated[str | None, typer.Option("--task", help=TASK_HELP)] = None,
    target_accuracy: Annotated[
        float, typer.Option("--target_accuracy", help="Accuracy that answers above the threshold must reach.")
    ] = 0.95,
    seed: Annotated[int, typer.Option("--seed", help="Seed of TF-IDF and of the folds of the calibration.")] = 42,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the facts of the stack as JSON on stdout, and nothing else.")
    ] = False,
) -> None:
    """Combine TF-IDF and a tuned model into one model that `predict`, `label`, `serve` and `eval` take like any other.

    Logistic regression over the log-odds of both, fitted on validation reviews, which must not be among the training
    reviews of either. The folder holds everything, with a copy of the tuned model: it can be moved to another machine.
    """
    from sentifactory.evaluation.stack.fit_stack import StackOptions, describe_stack, make_stack
    from sentifactory.system.command_line import describe_next
    from sentifactory.training.run.next_comparison import suggest_after_stack

    facts = make_stack(
        StackOptions(
            model=model,
            train_csv=train_csv,
            val_path=val_path,
            output_dir=output_dir,
            engine=engine,
            task=task,
            target_accuracy=target_accuracy,
            seed=seed,
        )
    )
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=2))
    else:
        typer.echo(describe_stack(facts, output_dir))
        typer.echo(describe_next(suggest_after_stack(output_dir, train_csv, task)))
