"""The commands that look at data and change nothing: `data doubt` and `data show`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

What = Annotated[
    str, typer.Argument(help="A file of reviews, or a data set that data prepare made.", metavar="FILE|NAME")
]
DatasetDir = Annotated[str, typer.Option("--dataset_dir", help="Folder that holds the data sets.", metavar="FOLDER")]
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="Task whose labels the reviews have.  [that of the manifest beside them, else binary_sentiment]",
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
    folds: Annotated[int, typer.Option("--folds", help="Each review is judged by a model of the other folds.")] = 5,
    seed: Seed = 42,
    top: Annotated[
        int | None, typer.Option("--top", help="Write the so many most doubtful.  [all]", metavar="N")
    ] = None,
    output_file: Annotated[
        str, typer.Option("--output_file", help="CSV file to write.", metavar="FILE")
    ] = "doubtful.csv",
    dataset_dir: DatasetDir = "data",
    task: TaskName = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON instead of a table.")] = False,
) -> None:
    """List the labels that the other reviews contradict, most doubtful first, for a person to look at.

    Nothing is changed: correct the labels in your own file and prepare it again. A listed label is a suspect, judged
    by a TF-IDF model of the other reviews; sarcasm and mixed reviews are on the list too.
    """
    from sentifactory.corpus.data_console import DOUBTFUL_SHOWN, print_doubtful
    from sentifactory.corpus.inspected import load_inspected
    from sentifactory.corpus.inspection import list_doubtful
    from sentifactory.corpus.intake import ReadOptions

    options = ReadOptions(text_column=text_column, label_column=label_column)
    data = load_inspected(what, dataset_dir=dataset_dir, task_name=task, options=options)
    found = list_doubtful(data, output_file, n_folds=folds, seed=seed, top=top)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return
    print_doubtful(found["rows"][: 2 * DOUBTFUL_SHOWN], found["contradicted"])
    judgement = (
        f"it agrees with only {100 * found['agreement']:.1f}% of all, so much of the list is chance."
        if found["is_weak"]
        else f"about {found['probable']} of them are probably wrong."
    )
    typer.echo(
        f"{found['contradicted']} of {found['searched']} labels are contradicted by a model of the other reviews; "
        + judgement
    )
    typer.echo(
        f"{found['written']} written to {output_file}, most doubtful first. Nothing was changed: a person decides."
    )


def show_data(
    what: What,
    output_file: Annotated[
        str, typer.Option("--output_file", help="Page to draw.", metavar="FILE")
    ] = "data_report.html",
    seed: Seed = 42,
    tokenizer: Annotated[
        str | None,
        typer.Option("--tokenizer", help="Model folder; gives lengths in its tokens as well.", metavar="FOLDER"),
    ] = None,
    top: Annotated[int, typer.Option("--top", help="Doubtful labels to show.", min=1)] = 20,
    skip_doubt: Annotated[bool, typer.Option("--skip_doubt", help="Do not look for doubtful labels.")] = False,
    dataset_dir: DatasetDir = "data",
    task: TaskName = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    domain_column: DomainColumn = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON instead of tables.")] = False,
) -> None:
    """Show what is in a data set: counts, lengths, repeats, leaks, rejected rows, doubtful labels, samples.

    Prints tables and draws a page in English and Chinese that needs nothing but itself. Nothing is changed.
    """
    from sentifactory.corpus.data_console import print_picture
    from sentifactory.corpus.inspected import load_inspected
    from sentifactory.corpus.inspection import draw_picture
    from sentifactory.corpus.intake import ReadOptions
    from sentifactory.corpus.picture import PictureOptions

    columns = ReadOptions(text_column=text_column, label_column=label_column, domain_column=domain_column)
    data = load_inspected(what, dataset_dir=dataset_dir, task_name=task, options=columns)
    options = PictureOptions(seed=seed, tokenizer=tokenizer, n_doubtful=top, has_doubt=not skip_doubt)
    picture = draw_picture(data, output_file, options)
    if as_json:
        typer.echo(json.dumps(picture, ensure_ascii=False, indent=2))
        return
    print_picture(picture)
    typer.echo(f"Drawn: {output_file}")
