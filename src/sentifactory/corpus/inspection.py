"""The two ways of looking at data: a list of doubtful labels, and the picture of the whole. Neither changes it."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

from sentifactory.atomic import open_atomic, refuse_endangered, write_text
from sentifactory.corpus.data_page import render_page
from sentifactory.corpus.doubt import DEFAULT_FOLDS, DEFAULT_SEED, DoubtSearch, find_doubtful
from sentifactory.corpus.inspected import InspectedData
from sentifactory.corpus.overlaps import group_texts
from sentifactory.corpus.picture import PictureOptions, build_picture
from sentifactory.corpus.quoting import describe_place, make_encodable
from sentifactory.errors import ConfigError
from sentifactory.progress import say

PAGE_MARK = '<meta name="generator" content="sentifactory data show">'  # as its template has it
_HEAD_BYTES = 4096
DOUBTFUL_COLUMNS = (
    "file",
    "line",
    "part",
    "label",
    "suggested_label",
    "quality",
    "probability",
    "is_probable",
    "text",
)


def list_doubtful(
    data: InspectedData,
    output_file: str | Path,
    *,
    n_folds: int = DEFAULT_FOLDS,
    seed: int = DEFAULT_SEED,
    top: int | None = None,
) -> dict[str, Any]:
    """Write the labels that the other reviews contradict into a CSV file, and return them with figures.

    Near repeats are judged together, by a model that has seen none of them. All parts of a prepared data set are
    searched as one: a wrong label in the test part is no less wrong.

    Args:
        data: what is searched.
        output_file: the CSV file; it replaces an older one.
        n_folds: folds of the cross-validation.
        seed: another seed gives other folds.
        top: at most so many, the most doubtful ones; None: all.

    Raises:
        DataError: when the labels do not allow a search.
        ConfigError: when an option cannot be right, or the output would replace the data.
    """
    if top is not None and top < 1:
        raise ConfigError(f"The number is {top}", where="--top", expected="1 or more")
    _check_output(data, output_file, ",".join(DOUBTFUL_COLUMNS))
    reviews = data.reviews()
    say(f"{data.name}: {len(reviews)} reviews; looking for near repeats, which must be judged together")
    groups = group_texts([review.text for review in reviews]).group_of.tolist()
    say(f"{data.name}: training {n_folds} models, each on the reviews that it does not judge")
    found = find_doubtful(reviews, data.task.labels, n_folds=n_folds, seed=seed, groups=groups)
    rows = _describe_doubts(data, found)[:top]
    with open_atomic(output_file, newline="") as stream:
        stream.write(",".join(DOUBTFUL_COLUMNS) + "\n")
        writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerows([_as_cell(row[column]) for column in DOUBTFUL_COLUMNS] for row in rows)
    return {
        "name": data.name,
        "searched": found.n_searched,
        "passed_over": found.n_passed_over,
        "folds": n_folds,
        "seed": seed,
        "agreement": found.agreement,
        "is_weak": found.is_weak,
        "contradicted": len(found.doubts),
        "probable": found.n_probable,
        "written": len(rows),
        "output_file": str(output_file),
        "rows": rows,
    }


def _describe_doubts(data: InspectedData, found: DoubtSearch) -> list[dict[str, Any]]:
    parts = data.part_of()
    return [
        {
            **describe_place(doubt.review),
            "part": parts[doubt.position],
            **doubt.describe(data.task.labels),
            "text": make_encodable(doubt.review.text),
        }
        for doubt in found.doubts
    ]


def _as_cell(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value


def draw_picture(data: InspectedData, output_file: str | Path, options: PictureOptions) -> dict[str, Any]:
    """Draw the page of a data set and return the picture that it is drawn from.

    Raises:
        ConfigError: when an option cannot be right, or the page would replace the data.
    """
    _check_output(data, output_file, PAGE_MARK)
    picture = build_picture(data, options)
    # A picture that cannot be written as JSON could not be drawn again.
    json.dumps(picture)
    write_text(output_file, render_page(picture))
    return picture


def _check_output(data: InspectedData, output_file: str | Path, mark: str) -> None:
    """Make sure that looking at data replaces nothing but what was made by looking at data.

    Args:
        data: what is looked at.
        output_file: what will be written.
        mark: what stands in the first lines of every file of its kind.

    Raises:
        ConfigError: when the output is one of the files that were read, another file that is not ours, or a folder.
    """
    target = Path(output_file)
    if target.is_dir():
        raise ConfigError(
            "This is a folder", where=str(target), expected="a file", next_step="choose another --output_file"
        )
    refuse_endangered([target], data.files.values())
    if os.path.lexists(target):
        head = b""
        if target.is_file():
            with target.open("rb") as stream:
                head = stream.read(_HEAD_BYTES)
        if mark.encode() not in head:
            raise ConfigError(
                "Something stands here that this command did not make, and it would be replaced",
                where=str(target),
                next_step="move it away, or choose another --output_file",
            )
