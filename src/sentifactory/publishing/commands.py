"""The commands of this room: `sentifactory publish` and `sentifactory export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.task_choice import TASK_HELP

OutputDir = Annotated[Path, typer.Option("--output_dir", help="The new folder.")]
ValPath = Annotated[str, typer.Option("--val_path", help="Validation reviews on which both must say the same.")]
Dtype = Annotated[str, typer.Option("--dtype", help="Of the new weights: float32, float16 or bfloat16.")]
MaxSamples = Annotated[int, typer.Option("--max_samples", help="Most validation reviews to ask.")]
TaskName = Annotated[str | None, typer.Option("--task", help=TASK_HELP)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else.")]


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
    as_json: AsJson = False,
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


def export_merged(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder of a LoRA adapter.")],
    output_dir: OutputDir,
    val_path: ValPath,
    dtype: Dtype = "float32",
    max_samples: MaxSamples = 200,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Merge a LoRA adapter into its base model, and prove that the whole says the same.

    Adapter and merged model give the probability of every label for the validation reviews; the folder is written
    only when they agree. It carries the proof, the run card, the task and the calibration.
    """
    from sentifactory.publishing.export import ExportOptions, merge_adapter

    _print_proof(merge_adapter(ExportOptions(adapter, output_dir, dtype, val_path, max_samples, task)), as_json)


def export_dtype(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a checkpoint.")],
    output_dir: OutputDir,
    val_path: ValPath,
    dtype: Dtype = "bfloat16",
    max_samples: MaxSamples = 200,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Write a model with weights of another dtype, and prove that it still says the same.

    bfloat16 halves the room; the folder is written only when answers and probabilities on the validation reviews
    agree as closely as the dtype allows. It carries the proof, the run card, the task and the calibration.
    """
    from sentifactory.publishing.export import ExportOptions, change_dtype

    _print_proof(change_dtype(ExportOptions(model, output_dir, dtype, val_path, max_samples, task)), as_json)


def _print_proof(proof: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(proof, ensure_ascii=False, indent=2))
        return
    parity = proof["parity"]
    typer.echo(
        f"{parity['flips']} of {parity['reviews']} labels flipped; accuracy {parity['accuracy_checkpoint']:.3f} "
        f"before, {parity['accuracy']:.3f} after; probabilities differ by {parity['difference_mean']:.5f} on the mean "
        f"and {parity['difference_max']:.5f} at most"
    )
