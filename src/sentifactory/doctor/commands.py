"""The command `sentifactory doctor`."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else.")
    ] = False,
) -> None:
    """Say what is installed, what the machine can do, what is here already, and which command makes the rest.

    Looks at both environments, the GPU (bfloat16 or not), disk and memory, pretrained models, reviews, checkpoints and
    reports of the current folder. Starts nothing and changes nothing.
    """
    from pathlib import Path

    from sentifactory.doctor.examining import examine

    findings = examine(Path.cwd())
    if as_json:
        is_ready = all(finding.status != "missing" for finding in findings)
        result = {"is_ready": is_ready, "findings": [finding.to_dict() for finding in findings]}
        typer.echo(json.dumps(result, ensure_ascii=False, indent=2))
        return
    for finding in findings:
        typer.echo(f"{finding.status:<8} {finding.topic}: {finding.summary}.")
        if finding.next_step:
            typer.echo(f"{'':<8} -> {finding.next_step}")
