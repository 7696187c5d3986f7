"""The commands of this room: `sentifactory publish` and `sentifactory export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def publish(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the checkpoint, with its run card.")],
    repo_id: Annotated[str, typer.Option("--repo_id", help="Where it goes: owner/name.")],
    hub: Annotated[str, typer.Option("--hub", help="huggingface (HF_ENDPOINT is honoured) or modelscope.")] = (
        "huggingface"
    ),
    report: Annotated[
        Path | None,
        typer.Option("--report", help="report.json of a comparison of this very checkpoint.  [looked for in saves]"),
    ] = None,
    license_id: Annotated[
        str | None, typer.Option("--license", help="Licence of the tuned model.  [the base model's]")
    ] = None,
    data_license: Annotated[
        str | None, typer.Option("--data_license", help="Licence of training reviews of your own.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody see it; without this it is private.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Publish although the report does not show that it beats its base model; the card says so first.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry_run", "--dry-run", help="Send nothing: list files, sizes and the card.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else.")
    ] = False,
) -> None:
    """Publish a tuned model, with a card that is made from its evidence.

    The token comes from the environment (HF_TOKEN, MODELSCOPE_API_TOKEN) or the stored login. Refused with the reason:
    no report on this very checkpoint, leaked test reviews, no proof that it beats its base model, a licence that is
    missing or does not fit, secrets and stray files in the folder. After a break the same command continues.
    """
    from sentifactory.publishing.publish import PublishOptions, publish_model

    result = publish_model(
        PublishOptions(
            folder=run,
            repo_id=repo_id,
            hub=hub,
            report_file=report,
            licence=license_id,
            data_licence=data_license,
            is_public=public,
            is_forced=force,
            is_dry_run=dry_run,
        )
    )
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False, indent=2))
        return
    for name, size in result["files"].items():
        typer.echo(f"{size:>15,}  {name}")
    typer.echo(f"Stays here: {', '.join(result['stay_behind']) or 'nothing'}")
    if dry_run:
        typer.echo(f"\n{result['card']}")
    else:
        typer.echo(result["url"])
