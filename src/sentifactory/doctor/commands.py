"""The command `sentifactory doctor`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sentifactory.doctor.machine_checks import Finding


def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else.")
    ] = False,
) -> None:
    """Check what is installed and what the machine can do, and name the command for what is missing.

    Checks both environments, the GPU (bfloat16 or not), disk and memory, pretrained models, reviews, checkpoints and
    reports of the current folder. Starts nothing and changes nothing.
    """
    from sentifactory.errors import show_controls

    findings = examine(Path.cwd())
    if as_json:
        is_ready = all(finding.status != "missing" for finding in findings)
        result = {"is_ready": is_ready, "findings": [finding.to_dict() for finding in findings]}
        typer.echo(json.dumps(result, ensure_ascii=False, indent=2))
        return
    for finding in findings:
        typer.echo(show_controls(f"{finding.status:<8} {finding.topic}: {finding.summary}."))
        if finding.next_step:
            typer.echo(show_controls(f"{'':<8} -> {finding.next_step}"))


def examine(root: Path) -> list[Finding]:
    """Run all checks and return their findings.

    Args:
        root: the folder of the checkout, or any folder with `data` and `saves`.
    """
    from sentifactory.doctor.machine_checks import (
        check_gpu,
        check_hub,
        check_machine,
        check_others,
        check_training,
        check_vllm,
    )
    from sentifactory.doctor.project_checks import check_data, check_models, check_reports, check_runs

    return [
        check_machine(root),
        check_gpu(),
        check_training(root),
        check_vllm(root),
        check_others(),
        check_hub(),
        check_models(root),
        check_data(root),
        check_runs(root),
        check_reports(root),
    ]
