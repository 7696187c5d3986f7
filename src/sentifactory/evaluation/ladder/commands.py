"""The command `sentifactory eval ladder`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from sentifactory.engines.base import Mode
from sentifactory.task.task_choice import TASK_HELP


def compare_on_ladder(
    csv_path: Annotated[str, typer.Option("--csv_path", help="Test reviews with text and label.")],
    train_csv: Annotated[
        str, typer.Option("--train_csv", help="Training reviews; they must contain none of the test reviews.")
    ],
    base_model: Annotated[
        str | None, typer.Option("--base_model", help="Folder of the untuned model, for zero-shot and few-shot.")
    ] = None,
    freeze_model: Annotated[
        str | None, typer.Option("--freeze_model", help="Folder of the model tuned by freezing.")
    ] = None,
    lora_model: Annotated[
        str | None, typer.Option("--lora_model", help="Folder of the model tuned by LoRA, merged.")
    ] = None,
    encoder_model: Annotated[
        list[str] | None,
        typer.Option(
            "--encoder_model", help="Folder of a tuned encoder. May be repeated: each is an entry of its own."
        ),
    ] = None,
    stack_model: Annotated[
        str | None, typer.Option("--stack_model", help="Folder that `sentifactory model stack` has made.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            help="Engine of the language models: vllm, transformers, or an address.  [vllm, without it transformers]",
        ),
    ] = None,
    mode: Annotated[
        Mode, typer.Option("--mode", help="Mode of the language models: generate, constrain or score.")
    ] = "score",
    shots: Annotated[int, typer.Option("--shots", help="Examples of each label for few-shot.")] = 4,
    task: Annotated[str | None, typer.Option("--task", help=TASK_HELP)] = None,
    max_samples: Annotated[
        int | None, typer.Option("--max_samples", help="Most reviews to ask, with the file's class shares. [all]")
    ] = None,
    train_samples: Annotated[
        int | None, typer.Option("--train_samples", help="Train on only the first rows of --train_csv. [all]")
    ] = None,
    output_file: Annotated[
        str | None,
        typer.Option(
            "--output_file",
            help="Where ladder.json goes; page and Markdown are written next to it.  [reports/ladder.json of the data "
            "set of --csv_path]",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the sample, of TF-IDF and of the examples.")] = 42,
    allow_leaks: Annotated[
        bool, typer.Option("--allow_leaks", help="Continue although test reviews are in --train_csv.")
    ] = False,
    val_path: Annotated[
        str | None, typer.Option("--val_path", help="Validation reviews, which --adapt_prior needs.")
    ] = None,
    adapt_prior: Annotated[
        bool,
        typer.Option(
            "--adapt_prior",
            help="Also estimate the labels' shares among the test reviews, without their labels, and adapt every "
            "model's answers to them; each model's correction is fitted on --val_path (--mode score).",
        ),
    ] = False,
    snownlp: Annotated[
        bool, typer.Option("--snownlp", help="Also ask the classifier of the package snownlp: negative and positive.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the ladder as JSON on stdout, and nothing else.")
    ] = False,
) -> None:
    """Compare many models on the same test reviews, from the majority label to a tuned language model.

    Accuracy, calibration, speed and peak memory are measured in one run, each model in its own process. Models that
    are not available on this machine are listed as missing. After an interruption the same command continues and does
    not ask a model again that had answered everything.
    """
    from sentifactory.engines.vllm.vllm_install import choose_language_engine
    from sentifactory.evaluation.ladder.ladder import LadderOptions, run_ladder
    from sentifactory.evaluation.ladder.ladder_report import TITLE, print_ladder, write_ladder
    from sentifactory.evaluation.ladder.ladder_resume import find_resume_folder, remove_finished
    from sentifactory.evaluation.next_use import suggest_after_ladder
    from sentifactory.evaluation.report.report import check_report_place
    from sentifactory.system.command_line import describe_next
    from sentifactory.system.progress import say
    from sentifactory.task.reports_folder import find_data_reports

    models = [base_model, freeze_model, lora_model, stack_model, *(encoder_model or ())]
    inputs = [csv_path, train_csv, val_path, *models, task]
    place = output_file or str(find_data_reports(csv_path) / "ladder.json")
    check_report_place(place, inputs, version="ladder_version", title=TITLE.en)
    options = LadderOptions(
        csv_path=csv_path,
        train_csv=train_csv,
        base_model=base_model,
        freeze_model=freeze_model,
        lora_model=lora_model,
        encoder_models=tuple(encoder_model or ()),
        stack_model=stack_model,
        engine=engine or choose_language_engine(),
        mode=mode,
        shots=shots,
        task=task,
        max_samples=max_samples,
        train_samples=train_samples,
        seed=seed,
        allow_leaks=allow_leaks,
        val_path=val_path,
        adapt_prior=adapt_prior,
        snownlp=snownlp,
    )
    ladder = run_ladder(options, keep_in=find_resume_folder(place))
    page = write_ladder(ladder, place)
    remove_finished(place)
    say(f"Ladder: {place} and {page}")
    if as_json:
        typer.echo(json.dumps(ladder, ensure_ascii=False, indent=2))
        return
    print_ladder(ladder)
    typer.echo(describe_next(suggest_after_ladder(ladder, options)))
