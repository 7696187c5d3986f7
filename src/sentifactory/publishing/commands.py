"""The commands `sentifactory publish` and `sentifactory export merge | dtype`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.task.task_choice import TASK_HELP

OutputDir = Annotated[Path, typer.Option("--output_dir", help="Folder to write.")]
ValPath = Annotated[str, typer.Option("--val_path", help="Validation reviews on which both models must agree.")]
Dtype = Annotated[str, typer.Option("--dtype", help="Dtype of the new weights: float32, float16 or bfloat16.")]
MaxSamples = Annotated[int, typer.Option("--max_samples", help="Maximum number of validation reviews to compare.")]
TaskName = Annotated[str | None, typer.Option("--task", help=TASK_HELP)]
AsJson = Annotated[bool, typer.Option("--json", help="Print only the result, as JSON, on stdout.")]


def publish(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Checkpoint folder with its run card.")],
    repo_id: Annotated[str, typer.Option("--repo_id", help="Target repository: owner/name.")],
    hub: Annotated[str, typer.Option("--hub", help="huggingface (HF_ENDPOINT is honoured) or modelscope.")] = (
        "huggingface"
    ),
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="report.json of a comparison of exactly this checkpoint.  [searched under saves and RUN/reports]",
        ),
    ] = None,
    license_id: Annotated[
        str | None, typer.Option("--license", help="Licence of the tuned model.  [the base model's]")
    ] = None,
    data_license: Annotated[
        str | None, typer.Option("--data_license", help="Licence of your own training reviews.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Make the repository public; the default is private.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Publish even if the report does not show that the model beats its base model (or TF-IDF, where the "
            "base model only guesses); the card then opens with a warning.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry_run", "--dry-run", help="Upload nothing; list the files and print the card.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish a tuned model with a model card generated from its run card and evaluation report.

    The token comes from the environment (HF_TOKEN, MODELSCOPE_API_TOKEN) or the stored login. Refuses, with reasons, a
    checkpoint without a report of its own, with leaked test reviews, without proof that it beats its base model, with
    a missing or incompatible licence, or with secrets or unexpected files. An interrupted upload continues when the
    command is run again.
    """
    from sentifactory.publishing.hub.publish import PublishOptions, publish_model

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
    typer.echo(f"Not uploaded: {', '.join(result['stay_behind']) or 'nothing'}")
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
    """Merge a LoRA adapter into its base model, and verify that the merged model answers the same.

    Compares the label probabilities of both on the validation reviews, and writes the folder only if they agree. The
    folder includes the comparison, the run card, the task and the calibration.
    """
    from sentifactory.publishing.export.model_export import ExportOptions, merge_adapter
    from sentifactory.system.command_line import describe_next
    from sentifactory.training.run.next_comparison import suggest_comparison
    from sentifactory.training.run.run_card import read_card

    _print_proof(merge_adapter(ExportOptions(adapter, output_dir, dtype, val_path, max_samples, task)), as_json)
    card = read_card(output_dir)
    if not as_json and card is not None:
        typer.echo(describe_next(suggest_comparison(card, output_dir)))


def export_dtype(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a checkpoint.")],
    output_dir: OutputDir,
    val_path: ValPath,
    dtype: Dtype = "bfloat16",
    max_samples: MaxSamples = 200,
    task: TaskName = None,
    as_json: AsJson = False,
) -> None:
    """Convert a model's weights to another dtype, and verify that it still answers the same.

    bfloat16 halves the size. Writes the folder only if labels and probabilities on the validation reviews agree within
    the limits of the dtype. The folder includes the comparison, the run card, the task and the calibration.
    """
    from sentifactory.evaluation.next_use import suggest_service
    from sentifactory.publishing.export.model_export import ExportOptions, change_dtype
    from sentifactory.system.command_line import describe_next
    from sentifactory.training.run.next_comparison import choose_available_engine

    _print_proof(change_dtype(ExportOptions(model, output_dir, dtype, val_path, max_samples, task)), as_json)
    if not as_json:
        typer.echo(describe_next(suggest_service(str(output_dir), choose_available_engine(), None)))


def _print_proof(proof: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(proof, ensure_ascii=False, indent=2))
        return
    parity = proof["parity"]
    typer.echo(
        f"{parity['flips']} of {parity['reviews']} labels flipped; accuracy {parity['accuracy_checkpoint']:.3f} "
        f"before, {parity['accuracy']:.3f} after; probabilities differ by {parity['difference_mean']:.5f} on average "
        f"and {parity['difference_max']:.5f} at most"
    )
