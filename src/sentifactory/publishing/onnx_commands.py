"""One more command of this room: `sentifactory export onnx`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, cast

import typer

from sentifactory.task_choice import TASK_HELP


def export_onnx(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="Folder of a trained encoder, or a hub id.")],
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Folder to write; an earlier export is replaced.")],
    val_path: Annotated[
        str, typer.Option("--val_path", help="Validation reviews on which export and checkpoint are compared.")
    ],
    quantise: Annotated[
        str,
        typer.Option(
            "--quantise",
            help="none: float32; dynamic: int8; static: int8 with fixed ranges. Both int8 forms learn from a fifth of "
            "the validation reviews, which are not compared then.",
        ),
    ] = "dynamic",
    max_flips: Annotated[
        float, typer.Option("--max_flips", help="Largest share of labels that may be other ones than before.")
    ] = 0.01,
    max_difference: Annotated[
        float, typer.Option("--max_difference", help="Largest difference of the probabilities, on the mean.")
    ] = 0.02,
    max_samples: Annotated[
        int, typer.Option("--max_samples", min=1, help="Most validation reviews that are asked.")
    ] = 500,
    task: Annotated[str | None, typer.Option("--task", help=TASK_HELP)] = None,
    opset: Annotated[int, typer.Option("--opset", help="Version of ONNX's operations.")] = 18,
    seed: Annotated[int, typer.Option("--seed", help="Chooses the sample of --max_samples.")] = 42,
    as_json: Annotated[bool, typer.Option("--json", help="Print export.json on stdout, and nothing else.")] = False,
) -> None:
    """Export an encoder to ONNX for ONNX Runtime on CPUs, as int8 or float32.

    The export is asked the same validation reviews as the checkpoint. If more labels flip, or probabilities differ by
    more than is allowed, nothing is written and the command ends with exit code 2. The comparison, and size, memory,
    latency and throughput on this machine, stand in export.json in the folder, and are printed.
    """
    from sentifactory.publishing.export_report import describe_export
    from sentifactory.publishing.onnx_export import ExportOptions, export_checkpoint
    from sentifactory.publishing.onnx_graph import Quantise
    from sentifactory.publishing.parity import ParityLimits

    facts = export_checkpoint(
        ExportOptions(
            checkpoint=checkpoint,
            output_dir=output_dir,
            val_path=val_path,
            task=task,
            quantise=cast("Quantise", quantise),
            limits=ParityLimits(max_flips, max_difference),
            max_samples=max_samples,
            opset=opset,
            seed=seed,
        )
    )
    typer.echo(json.dumps(facts, ensure_ascii=False, indent=2) if as_json else describe_export(output_dir, facts))
