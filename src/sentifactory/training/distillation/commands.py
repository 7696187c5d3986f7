"""The command `sentifactory distill`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sentifactory.task.task_choice import TASK_HELP


def distill(
    teacher: Annotated[str, typer.Option("--teacher", help="Folder of the tuned model, or its name at an address.")],
    input_file: Annotated[
        list[str], typer.Option("--input_file", help="Reviews; labels are ignored. May be repeated.")
    ],
    output_file: Annotated[
        Path, typer.Option("--output_file", help="Output file of the soft labels; must end in .jsonl.")
    ],
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            help="vllm, transformers, encoder, onnx, auto (by the model), or an address.  "
            "[vllm, without it transformers]",
        ),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help=TASK_HELP)] = None,
    max_samples: Annotated[
        int | None, typer.Option("--max_samples", min=1, help="Maximum number of reviews. [all]")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the selection by --max_samples.")] = 42,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON, and nothing else.")] = False,
) -> None:
    """Label reviews with the probabilities of a tuned model, to train an encoder on them (distillation).

    Set soft_label_path, distill_temperature and distill_weight in an encoder recipe to train on the file. The same
    command continues an interrupted run.
    """
    from sentifactory.engines.vllm.vllm_install import choose_language_engine
    from sentifactory.system.command_line import describe_next
    from sentifactory.training.distillation.next_student import suggest_student
    from sentifactory.training.distillation.teacher import DistillOptions, ask_teacher

    kind = engine or choose_language_engine()
    facts = ask_teacher(DistillOptions(teacher, tuple(input_file), output_file, kind, task, max_samples, seed))
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    answered = ", ".join(f"{count} {label}" for label, count in facts["answered"].items())
    typer.echo(f"Soft labels of {facts['reviews']} reviews ({answered}): {output_file}")
    typer.echo(f"Set soft_label_path: {output_file} in an encoder recipe")
    typer.echo(describe_next(*suggest_student(facts, output_file, task)))
