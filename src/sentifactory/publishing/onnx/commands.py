"""The command `sentifactory export onnx`, and its summary for the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from sentifactory.task.task_choice import TASK_HELP

_MIB = 2**20


def export_onnx(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="Folder or hub id of a trained encoder.")],
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Folder to write; an earlier export is replaced.")],
    val_path: Annotated[
        str, typer.Option("--val_path", help="Validation reviews for comparing the export with the checkpoint.")
    ],
    quantise: Annotated[
        str,
        typer.Option(
            "--quantise",
            help="none: float32; dynamic: int8; static: int8 with fixed activation ranges. Both int8 forms are "
            "calibrated on a fifth of the validation reviews, which are then left out of the comparison.",
        ),
    ] = "dynamic",
    max_flips: Annotated[float, typer.Option("--max_flips", help="Largest share of labels that may flip.")] = 0.01,
    max_difference: Annotated[
        float, typer.Option("--max_difference", help="Largest mean difference of the probabilities.")
    ] = 0.02,
    max_samples: Annotated[
        int, typer.Option("--max_samples", min=1, help="Maximum number of validation reviews to use.")
    ] = 500,
    task: Annotated[str | None, typer.Option("--task", help=TASK_HELP)] = None,
    opset: Annotated[int, typer.Option("--opset", help="ONNX opset version.")] = 18,
    seed: Annotated[int, typer.Option("--seed", help="Seed for sampling --max_samples reviews.")] = 42,
    as_json: Annotated[bool, typer.Option("--json", help="Print only export.json on stdout.")] = False,
) -> None:
    """Export an encoder to ONNX for ONNX Runtime on CPUs, as int8 or float32.

    Compares export and checkpoint on validation reviews. If they differ by more than is allowed,
    nothing is written and the command ends with exit code 2. The comparison, and size, memory, latency and throughput
    on this machine, are written to export.json and printed.
    """
    from sentifactory.evaluation.next_use import suggest_service
    from sentifactory.publishing.export.parity import ParityLimits
    from sentifactory.publishing.onnx.onnx_export import ExportOptions, export_checkpoint
    from sentifactory.publishing.onnx.onnx_graph import Quantise
    from sentifactory.system.command_line import describe_next

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
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    typer.echo(describe_export(output_dir, facts))
    typer.echo(describe_next(suggest_service(str(output_dir), None, task)))


def describe_export(folder: Path, facts: Mapping[str, Any]) -> str:
    """Return a summary of an export: path and size, comparison with the checkpoint, speed."""
    parity, speed, limits = facts["parity"], facts["speed"], facts["parity"]["limits"]
    interval = parity["flip_interval"]
    lines = [
        f"Exported ({facts['precision']}): {folder}, {facts['size_bytes'] / _MIB:.1f} MiB",
        f"Parity: {parity['flips']} of {parity['reviews']} labels flip ({parity['flip_share']:.2%}, 95% interval "
        f"{interval['low']:.2%} to {interval['high']:.2%}; allowed {limits['flips']:.2%}); probabilities differ by "
        f"{parity['difference_mean']:.4f} on average (allowed {limits['difference']:g}), "
        f"{parity['difference_p95']:.4f} at the 95th percentile, {parity['difference_max']:.4f} at most",
    ]
    if parity["accuracy"] is not None:
        lines.append(
            f"Accuracy on these reviews: {parity['accuracy']:.2%}, checkpoint {parity['accuracy_checkpoint']:.2%}"
        )
    peak = "memory unknown" if speed["peak_bytes"] is None else f"peak memory {speed['peak_bytes'] / _MIB:.0f} MiB"
    lines.append(
        f"Speed on this machine, {speed['threads']} threads: {speed['reviews_per_s']:.1f} reviews/s; one at a time "
        f"p50 {speed['latency_p50_s'] * 1000:.1f} ms, p95 {speed['latency_p95_s'] * 1000:.1f} ms, "
        f"p99 {speed['latency_p99_s'] * 1000:.1f} ms; {peak}"
    )
    return "\n".join(lines)
