"""The commands of this room: `sentifactory eval compare` and `sentifactory demo`."""

from __future__ import annotations

import json
from typing import Annotated, cast

import typer

from sentifactory.engines.base import MAX_NEW_TOKENS, Mode
from sentifactory.task_choice import TASK_HELP


def compare_models(
    csv_path: Annotated[
        list[str],
        typer.Option("--csv_path", help="Test reviews with text and label; give it again for files to compare with."),
    ],
    base_model: Annotated[
        str, typer.Option("--base_model", help="Folder of the base model, or its name at an address.")
    ],
    finetuned_model: Annotated[
        str, typer.Option("--finetuned_model", help="Folder of the tuned model, or its name at an address.")
    ],
    max_samples: Annotated[
        int | None, typer.Option("--max_samples", help="Most reviews to ask, with the file's class shares. [all]")
    ] = None,
    val_path: Annotated[
        str | None,
        typer.Option(
            "--val_path", help="Validation reviews: calibrations are fitted on them and saved with the models."
        ),
    ] = None,
    target_accuracy: Annotated[
        float, typer.Option("--target_accuracy", help="Accuracy that answers above the threshold shall reach.")
    ] = 0.95,
    output_file: Annotated[
        str, typer.Option("--output_file", help="Where report.json goes; page, text and tables are written beside it.")
    ] = "saves/comparison/report.json",
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            help="vllm, transformers, encoder, auto (by the model), or the address of an OpenAI-compatible server.",
        ),
    ] = "vllm",
    base_url: Annotated[
        str | None, typer.Option("--base_url", help="Address that serves the base model, in place of --engine.")
    ] = None,
    tuned_url: Annotated[
        str | None, typer.Option("--tuned_url", help="Address that serves the tuned model, in place of --engine.")
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            "--mode",
            help="generate: free text; constrain: only valid answers can be written; score: label probabilities.",
        ),
    ] = "generate",
    task: Annotated[str | None, typer.Option("--task", help=TASK_HELP)] = None,
    train_csv: Annotated[
        str | None, typer.Option("--train_csv", help="Training reviews: adds TF-IDF, and refuses leaked test reviews.")
    ] = None,
    train_samples: Annotated[
        int | None, typer.Option("--train_samples", help="TF-IDF learns from the first so many rows only. [all]")
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max_new_tokens", help="Longest reply, in tokens.")
    ] = MAX_NEW_TOKENS,
    seed: Annotated[int, typer.Option("--seed", help="Chooses the sample of --max_samples.")] = 42,
    train_file: Annotated[
        list[str] | None,
        typer.Option(
            "--train_file",
            help="File that the tuned model was trained on, to refuse leaked test reviews. May be repeated.  "
            "[those of its run card]",
        ),
    ] = None,
    allow_leaks: Annotated[
        bool, typer.Option("--allow_leaks", help="Compare although training has seen test reviews.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else.")
    ] = False,
) -> None:
    """Compare a base model with its tuned form on the same labelled reviews.

    Both are asked greedily, one after the other. Answers are parsed strictly; one that cannot be parsed counts as
    wrong. Every prediction goes into report.json, and report.html shows who wins and how sure that is. A comparison
    that was killed continues when the same command is given again.
    """
    from sentifactory.evaluation.compare import CompareOptions, run_comparison
    from sentifactory.evaluation.console import print_report
    from sentifactory.evaluation.report import summarise_report

    report = run_comparison(
        CompareOptions(
            csv_path=csv_path[0],
            more_csv_paths=tuple(csv_path[1:]),
            val_path=val_path,
            target_accuracy=target_accuracy,
            base_model=base_model,
            finetuned_model=finetuned_model,
            output_file=output_file,
            max_samples=max_samples,
            engine=engine,
            base_url=base_url,
            tuned_url=tuned_url,
            mode=cast(Mode, mode),
            task=task,
            train_csv=train_csv,
            train_samples=train_samples,
            max_new_tokens=max_new_tokens,
            seed=seed,
            train_files=tuple(train_file or ()),
            allow_leaks=allow_leaks,
        )
    )
    if as_json:
        typer.echo(json.dumps(summarise_report(report), ensure_ascii=False, indent=2))
    else:
        print_report(report)


def run_demo(
    max_samples: Annotated[
        int, typer.Option("--max_samples", help="Held-out reviews on which base and tuned are compared.")
    ] = 300,
) -> None:
    """Show the whole road on this machine: reviews, freeze-training, base against tuned, report.

    Needs no account and no hub. What is there and complete is not made again, so that the same command continues a
    demo that was cut off.
    """
    from sentifactory.evaluation.console import print_report
    from sentifactory.evaluation.demo import REPORT_FILE, run_stages
    from sentifactory.evaluation.report import page_path_for

    print_report(run_stages(max_samples))
    typer.echo(f"Look at {page_path_for(REPORT_FILE)} in a browser; every prediction is in {REPORT_FILE}.")
