"""One more command of this room: `sentifactory distill`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sentifactory.task_choice import TASK_HELP


def distill(
    teacher: Annotated[str, typer.Option("--teacher", help="Folder of the tuned model, or its name at an address.")],
    input_file: Annotated[
        list[str], typer.Option("--input_file", help="Reviews; labels are not looked at. May be repeated.")
    ],
    output_file: Annotated[
        Path, typer.Option("--output_file", help="Where the soft labels go: a file that ends in .jsonl.")
    ],
    engine: Annotated[
        str, typer.Option("--engine", help="vllm, transformers, encoder, onnx, auto (by the model), or an address.")
    ] = "vllm",
    task: Annotated[str | None, typer.Option("--task", help=TASK_HELP)] = None,
    max_samples: Annotated[
        int | None, typer.Option("--max_samples", min=1, help="Most reviews that the teacher is asked about. [all]")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Chooses the reviews of --max_samples.")] = 42,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON, and nothing else.")] = False,
) -> None:
    """Ask a tuned model about reviews without labels, so that its probabilities teach an encoder.

    An encoder recipe takes the file by soft_label_path, with distill_temperature and distill_weight. A run that was
    cut off is continued by the same command.
    """
    from sentifactory.evaluation.teaching import TeachOptions, ask_teacher

    facts = ask_teacher(TeachOptions(teacher, tuple(input_file), output_file, engine, task, max_samples, seed))
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    answered = ", ".join(f"{count} {label}" for label, count in facts["answered"].items())
    typer.echo(f"Soft labels of {facts['reviews']} reviews ({answered}): {output_file}")
    typer.echo(f"Set soft_label_path: {output_file} in an encoder recipe")
