"""More commands of this room: `sentifactory eval ladder` and `sentifactory eval power`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from sentifactory.engines.base import Mode
from sentifactory.task_choice import TASK_HELP


def climb(
    csv_path: Annotated[str, typer.Option("--csv_path", help="Test reviews with text and label.")],
    train_csv: Annotated[
        str, typer.Option("--train_csv", help="Training reviews; none of the test reviews among them.")
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
        typer.Option("--encoder_model", help="Folder of a tuned encoder. May be repeated: each is a rung."),
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", help="Of the language models: vllm, transformers, or an address.")
    ] = "vllm",
    mode: Annotated[
        Mode, typer.Option("--mode", help="Of the language models: generate, constrain or score.")
    ] = "score",
    shots: Annotated[int, typer.Option("--shots", help="Examples of each label for few-shot.")] = 4,
    task: Annotated[str | None, typer.Option("--task", help=TASK_HELP)] = None,
    max_samples: Annotated[
        int | None, typer.Option("--max_samples", help="Most reviews to ask, with the file's class shares. [all]")
    ] = None,
    train_samples: Annotated[
        int | None, typer.Option("--train_samples", help="Learn from the first so many training rows only. [all]")
    ] = None,
    output_file: Annotated[
        str, typer.Option("--output_file", help="Where ladder.json goes; page and text are written beside it.")
    ] = "saves/ladder/ladder.json",
    seed: Annotated[int, typer.Option("--seed", help="Of the sample, of TF-IDF and of the examples.")] = 42,
    allow_leaks: Annotated[
        bool, typer.Option("--allow_leaks", help="Go on although test reviews stand in --train_csv.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the ladder as JSON on stdout, and nothing else.")
    ] = False,
) -> None:
    """Put every model on the same test reviews, from the commonest label to a tuned language model.

    Accuracy, calibration, speed and peak memory are measured in this one run, each model in a process of its own. What
    is missing on this machine is said to be missing. After a break the same command asks no model twice that had
    answered all.
    """
    from sentifactory.evaluation.kept_rungs import name_folder, remove_kept
    from sentifactory.evaluation.ladder import LadderOptions, climb_ladder
    from sentifactory.evaluation.ladder_report import print_ladder, write_ladder
    from sentifactory.evaluation.report import check_report_place
    from sentifactory.progress import say

    models = [base_model, freeze_model, lora_model, *(encoder_model or ())]
    check_report_place(output_file, [csv_path, train_csv, *models, task])
    ladder = climb_ladder(
        LadderOptions(
            csv_path=csv_path,
            train_csv=train_csv,
            base_model=base_model,
            freeze_model=freeze_model,
            lora_model=lora_model,
            encoder_models=tuple(encoder_model or ()),
            engine=engine,
            mode=mode,
            shots=shots,
            task=task,
            max_samples=max_samples,
            train_samples=train_samples,
            seed=seed,
            allow_leaks=allow_leaks,
        ),
        keep_in=name_folder(output_file),
    )
    page = write_ladder(ladder, output_file)
    remove_kept(output_file)
    say(f"Ladder: {output_file} and {page}")
    if as_json:
        typer.echo(json.dumps(ladder, ensure_ascii=False, indent=2))
    else:
        print_ladder(ladder)


def count_reviews(
    difference: Annotated[
        float | None, typer.Option("--difference", help="Difference of the accuracies to be seen, such as 0.03.")
    ] = None,
    base_accuracy: Annotated[
        float | None, typer.Option("--base_accuracy", help="With --tuned_accuracy, in place of --difference.")
    ] = None,
    tuned_accuracy: Annotated[float | None, typer.Option("--tuned_accuracy", help="See --base_accuracy.")] = None,
    discordance: Annotated[
        float | None,
        typer.Option("--discordance", help="Share of reviews that just one model has right. [from the accuracies]"),
    ] = None,
    reviews: Annotated[
        int | None, typer.Option("--reviews", help="Ask what so many reviews would show, in place of how many.")
    ] = None,
    power: Annotated[float, typer.Option("--power", help="Chance wanted that the difference is shown.")] = 0.8,
    level: Annotated[float, typer.Option("--level", help="Significance level of the test, two-sided.")] = 0.05,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON on stdout.")] = False,
) -> None:
    """Say how many test reviews show a given difference of two models, by the exact McNemar test.

    The share of reviews on which the two differ decides it: a comparison's report has it (fixed and broken, by the
    number of reviews). Without it, the mistakes are taken as independent, which asks for more reviews than needed.
    """
    from sentifactory.evaluation.power import answer_power

    answer = answer_power(difference, base_accuracy, tuned_accuracy, discordance, reviews, power, level)
    typer.echo(json.dumps(answer.to_dict(), indent=2) if as_json else answer.describe())
