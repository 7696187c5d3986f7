"""The commands that inspect data without changing it: `data doubt` and `data show`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

DOUBTFUL_NAME, PAGE_NAME = "doubtful.csv", "data_report.html"

What = Annotated[
    str, typer.Argument(help="A file of reviews, or a data set that data prepare made.", metavar="FILE|NAME")
]
DatasetDir = Annotated[str, typer.Option("--dataset_dir", help="Folder that holds the data sets.", metavar="FOLDER")]
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="Task whose labels the reviews have.  [that of the manifest next to them, else binary_sentiment]",
        metavar="TASK",
    ),
]
TextColumn = Annotated[
    str | None, typer.Option("--text_column", help="Column of the reviews, for a file.", metavar="COLUMN")
]
LabelColumn = Annotated[
    str | None, typer.Option("--label_column", help="Column of the labels, for a file.", metavar="COLUMN")
]
DomainColumn = Annotated[
    str | None, typer.Option("--domain_column", help="Column of the domains, for a file.", metavar="COLUMN")
]
Seed = Annotated[int, typer.Option("--seed", help="Chooses the folds and the samples.")]


def find_doubtful_labels(
    what: What,
    folds: Annotated[int, typer.Option("--folds", help="A model of the other folds predicts each review.")] = 5,
    seed: Seed = 42,
    top: Annotated[
        int | None, typer.Option("--top", help="Write only the N most doubtful.  [all]", metavar="N")
    ] = None,
    output_file: Annotated[
        str | None,
        typer.Option(
            "--output_file", help=f"CSV file to write.  [reports/{DOUBTFUL_NAME} of the data set]", metavar="FILE"
        ),
    ] = None,
    dataset_dir: DatasetDir = "data",
    task: TaskName = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON instead of a table.")] = False,
) -> None:
    """List the labels that the other reviews contradict, most doubtful first, for a person to check.

    Nothing is changed: correct the labels in your own file and prepare it again. A TF-IDF model of the other reviews
    contradicts a listed label, which may still be right: sarcasm and mixed reviews are on the list too.
    """
    from sentifactory.corpus.inspection.data_console import DOUBTFUL_SHOWN, print_doubtful
    from sentifactory.corpus.inspection.inspect_data import list_doubtful
    from sentifactory.corpus.inspection.loaded_data import load_inspected
    from sentifactory.corpus.reading.read_result import ReadOptions
    from sentifactory.system.command_line import describe_next, write_command

    options = ReadOptions(text_column=text_column, label_column=label_column, can_name_columns=True)
    data = load_inspected(what, dataset_dir=dataset_dir, task_name=task, options=options)
    place = output_file or data.find_reports_folder() / DOUBTFUL_NAME
    found = list_doubtful(data, place, n_folds=folds, seed=seed, top=top)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return
    print_doubtful(found["rows"][: 2 * DOUBTFUL_SHOWN], found["contradicted"])
    reliability = (
        f"it agrees with only {100 * found['agreement']:.1f}% of all, so much of the list is chance."
        if found["is_weak"]
        else f"about {found['probable']} of them are probably wrong."
    )
    typer.echo(
        f"{found['contradicted']} of {found['searched']} labels are contradicted by a model of the other reviews; "
        + reliability
    )
    typer.echo(f"{found['written']} written to {place}, most doubtful first. Nothing was changed: a person decides.")
    named = (
        ("--dataset_dir", dataset_dir if dataset_dir != "data" else None),
        ("--task", task),
        ("--text_column", text_column),
        ("--label_column", label_column),
    )
    typer.echo(describe_next(write_command("data", "show", what, *named)))


def show_data(
    what: What,
    output_file: Annotated[
        str | None,
        typer.Option("--output_file", help=f"Page to write.  [reports/{PAGE_NAME} of the data set]", metavar="FILE"),
    ] = None,
    seed: Seed = 42,
    tokenizer: Annotated[
        str | None,
        typer.Option("--tokenizer", help="Model folder; gives lengths in its tokens as well.", metavar="FOLDER"),
    ] = None,
    top: Annotated[int, typer.Option("--top", help="Doubtful labels to show.", min=1)] = 20,
    skip_doubt: Annotated[bool, typer.Option("--skip_doubt", help="Do not search for doubtful labels.")] = False,
    dataset_dir: DatasetDir = "data",
    task: TaskName = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    domain_column: DomainColumn = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON instead of tables.")] = False,
) -> None:
    """Show what is in a data set: counts, lengths, duplicates, leaks, rejected rows, doubtful labels, samples.

    Prints tables and writes a self-contained page in English and Chinese. Nothing is changed.
    """
    from sentifactory.corpus.dataset.next_training import suggest_for_reviews
    from sentifactory.corpus.inspection.data_console import print_profile
    from sentifactory.corpus.inspection.data_profile import ProfileOptions
    from sentifactory.corpus.inspection.inspect_data import write_data_page
    from sentifactory.corpus.inspection.loaded_data import load_inspected
    from sentifactory.corpus.reading.read_result import ReadOptions
    from sentifactory.system.command_line import describe_next

    columns = ReadOptions(
        text_column=text_column, label_column=label_column, domain_column=domain_column, can_name_columns=True
    )
    data = load_inspected(what, dataset_dir=dataset_dir, task_name=task, options=columns)
    options = ProfileOptions(seed=seed, tokenizer=tokenizer, n_doubtful=top, has_doubt=not skip_doubt)
    place = output_file or data.find_reports_folder() / PAGE_NAME
    profile = write_data_page(data, place, options)
    if as_json:
        typer.echo(json.dumps(profile, ensure_ascii=False, indent=2))
        return
    print_profile(profile)
    typer.echo(f"Written: {place}")
    reviews = next(iter(data.files.values()))
    typer.echo(describe_next(*suggest_for_reviews(reviews, task, text_column, label_column)))
