"""The commands `sentifactory eval compare`, `sentifactory eval power` and `sentifactory demo`."""

from __future__ import annotations

import json
from typing import Annotated, cast

import typer

from sentifactory.engines.base import MAX_NEW_TOKENS, Mode
from sentifactory.task.task_choice import TASK_HELP


def compare_models(
    csv_path: Annotated[
        list[str],
        typer.Option(
            "--csv_path",
            help="Test reviews with text and label. May be repeated; the first decides.",
        ),
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
            "--val_path", help="Validation reviews; calibrations are fitted on them and saved with the models."
        ),
    ] = None,
    target_accuracy: Annotated[
        float,
        typer.Option("--target_accuracy", help="Accuracy that answers above the threshold must reach."),
    ] = 0.95,
    output_file: Annotated[
        str | None,
        typer.Option(
            "--output_file",
            help="Where report.json goes; page, text and CSV files are next to it.  [reports/report.json of the tuned "
            "model]",
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            help="vllm, transformers, encoder, auto (by the model), or the address of a vLLM, llama.cpp or Ollama.  "
            "[vllm, without it transformers]",
        ),
    ] = None,
    base_url: Annotated[
        str | None, typer.Option("--base_url", help="Address that serves the base model, instead of --engine.")
    ] = None,
    tuned_url: Annotated[
        str | None, typer.Option("--tuned_url", help="Address that serves the tuned model, instead of --engine.")
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            "--mode",
            help="generate: free text; constrain: valid answers only; score: label probabilities.",
        ),
    ] = "generate",
    task: Annotated[str | None, typer.Option("--task", help=TASK_HELP)] = None,
    train_csv: Annotated[
        str | None,
        typer.Option("--train_csv", help="Training reviews: adds TF-IDF, and refuses leaked test reviews."),
    ] = None,
    train_samples: Annotated[
        int | None,
        typer.Option(
            "--train_samples",
            help="Train TF-IDF on only the first rows of --train_csv, as the tuned model was; a second one gets all. "
            "[all]",
        ),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max_new_tokens", help="Longest reply, in tokens.")
    ] = MAX_NEW_TOKENS,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the sample of --max_samples.")] = 42,
    train_file: Annotated[
        list[str] | None,
        typer.Option(
            "--train_file",
            help="Training file of the tuned model; test reviews among its rows are refused. May be repeated.  "
            "[those of the model's run card]",
        ),
    ] = None,
    allow_leaks: Annotated[
        bool, typer.Option("--allow_leaks", help="Compare although training has seen test reviews.")
    ] = False,
    shots: Annotated[
        int,
        typer.Option(
            "--shots",
            help="Also ask the base model with so many training reviews of each label as examples in its prompt.",
        ),
    ] = 0,
    written_samples: Annotated[
        int | None,
        typer.Option(
            "--written_samples",
            help="With --mode score, also let the tuned model write its answer to so many of the test reviews.",
        ),
    ] = None,
    adapt_prior: Annotated[
        bool,
        typer.Option(
            "--adapt_prior",
            help="Also estimate the labels' shares among the test reviews, without their labels, and adapt every "
            "model's answers to them (--mode score).",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else.")
    ] = False,
) -> None:
    """Compare a base model with its tuned version on the same labelled reviews.

    The models are asked one after the other, with greedy decoding. Answers are parsed strictly; one that cannot be
    parsed counts as wrong. Every prediction is in report.json; report.html shows which model wins and how significant
    that is. After an interruption the same command continues.
    """
    from sentifactory.engines.vllm.vllm_install import choose_language_engine
    from sentifactory.evaluation.compare import run_comparison
    from sentifactory.evaluation.compare_options import CompareOptions
    from sentifactory.evaluation.next_use import suggest_after_comparison
    from sentifactory.evaluation.report.report import summarise_report
    from sentifactory.evaluation.report.report_console import print_report
    from sentifactory.system.command_line import describe_next
    from sentifactory.task.reports_folder import find_model_reports

    options = CompareOptions(
        csv_path=csv_path[0],
        more_csv_paths=tuple(csv_path[1:]),
        val_path=val_path,
        target_accuracy=target_accuracy,
        base_model=base_model,
        finetuned_model=finetuned_model,
        output_file=output_file or str(find_model_reports(finetuned_model) / "report.json"),
        max_samples=max_samples,
        engine=engine or ("vllm" if base_url and tuned_url else choose_language_engine()),
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
        shots=shots,
        written_samples=written_samples,
        adapt_prior=adapt_prior,
    )
    report = run_comparison(options)
    if as_json:
        typer.echo(json.dumps(summarise_report(report), ensure_ascii=False, indent=2))
        return
    print_report(report)
    typer.echo(describe_next(suggest_after_comparison(report, options)))


def run_demo(
    max_samples: Annotated[
        int, typer.Option("--max_samples", help="Test reviews on which base and tuned are compared.")
    ] = 1200,
) -> None:
    """Run the whole workflow on this machine: model, reviews, freeze-training, comparison, report.

    Needs no account and no hub. Completed stages are skipped, so that the same command continues an interrupted demo.
    """
    from sentifactory.evaluation.demo import REPORT_FILE, plan_comparison, run_stages
    from sentifactory.evaluation.next_use import suggest_after_comparison
    from sentifactory.evaluation.report.report import page_path_for
    from sentifactory.evaluation.report.report_console import print_report
    from sentifactory.system.command_line import describe_next

    report = run_stages(max_samples)
    print_report(report)
    typer.echo(f"Open {page_path_for(REPORT_FILE)} in a browser; every prediction is in {REPORT_FILE}.")
    typer.echo(describe_next(suggest_after_comparison(report, plan_comparison(max_samples))))


def count_reviews(
    difference: Annotated[
        float | None, typer.Option("--difference", help="Difference of accuracies to detect, such as 0.03.")
    ] = None,
    base_accuracy: Annotated[
        float | None, typer.Option("--base_accuracy", help="With --tuned_accuracy, instead of --difference.")
    ] = None,
    tuned_accuracy: Annotated[float | None, typer.Option("--tuned_accuracy", help="See --base_accuracy.")] = None,
    discordance: Annotated[
        float | None,
        typer.Option("--discordance", help="Share of reviews that only one model has right. [from the accuracies]"),
    ] = None,
    reviews: Annotated[
        int | None, typer.Option("--reviews", help="Compute the power of this number of reviews instead.")
    ] = None,
    power: Annotated[float, typer.Option("--power", help="Wanted probability that the difference is shown.")] = 0.8,
    level: Annotated[float, typer.Option("--level", help="Significance level of the test, two-sided.")] = 0.05,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON on stdout.")] = False,
) -> None:
    """Compute how many test reviews show a given difference between two models, by the exact McNemar test.

    The answer depends on the share of reviews on which the models differ, which the report of a comparison has (fixed
    plus broken, divided by the number of reviews). Without it independent mistakes are assumed, which overestimates
    the number of reviews.
    """
    from sentifactory.evaluation.next_use import suggest_after_power
    from sentifactory.metrics.power import answer_power
    from sentifactory.system.command_line import describe_next

    answer = answer_power(difference, base_accuracy, tuned_accuracy, discordance, reviews, power, level)
    if as_json:
        typer.echo(json.dumps(answer.to_dict(), indent=2))
        return
    typer.echo(answer.describe())
    typer.echo(describe_next(suggest_after_power(answer)))
