"""Writes what `data doubt` and `data show` find: a list of doubtful labels, and the page of a data set."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from sentifactory.corpus.inspection.data_page import render_page
from sentifactory.corpus.inspection.data_profile import ProfileOptions, build_profile
from sentifactory.corpus.inspection.display_text import describe_place, make_encodable
from sentifactory.corpus.inspection.doubtful_labels import DEFAULT_FOLDS, DEFAULT_SEED, DoubtSearch, find_doubtful
from sentifactory.corpus.inspection.loaded_data import InspectedData
from sentifactory.corpus.inspection.overlap_listing import group_duplicates
from sentifactory.errors import ConfigError
from sentifactory.system.atomic import has_marker, refuse_overwriting_inputs, write_new, write_text
from sentifactory.system.progress import say

PAGE_MARK = '<meta name="generator" content="sentifactory data show">'  # as its template has it
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
    """Write the labels that the other reviews contradict to a CSV file, and return them with statistics.

    Near duplicates stay in one fold. All parts of a prepared data set are searched, the test part included.

    Args:
        data: the reviews.
        output_file: the CSV file: a new one, or one with exactly this list.
        n_folds: folds of the cross-validation.
        seed: of the folds.
        top: write only the most doubtful ones; None: all.

    Raises:
        DataError: when the labels do not allow a search.
        ConfigError: when an option is invalid, or the output would replace the data or another list.
    """
    if top is not None and top < 1:
        raise ConfigError(f"The number is {top}", where="--top", expected="1 or more", code="option-value")
    _check_output(data, output_file, ",".join(DOUBTFUL_COLUMNS))
    reviews = data.reviews()
    say(f"{data.name}: {len(reviews)} reviews; looking for near duplicates, which must stay in one fold")
    groups = group_duplicates([review.text for review in reviews]).group_of.tolist()
    say(f"{data.name}: training {n_folds} models, each on the reviews that it does not predict")
    found = find_doubtful(reviews, data.task.labels, n_folds=n_folds, seed=seed, groups=groups)
    rows = _describe_doubts(data, found)[:top]
    table = io.StringIO()
    table.write(",".join(DOUBTFUL_COLUMNS) + "\n")
    writer = csv.writer(table, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerows([_as_cell(row[column]) for column in DOUBTFUL_COLUMNS] for row in rows)
    # People edit this list: an existing file is only accepted if it is identical.
    write_new(output_file, table.getvalue().encode(), "a new file, or exactly this list")
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


def write_data_page(data: InspectedData, output_file: str | Path, options: ProfileOptions) -> dict[str, Any]:
    """Write the page of a data set and return its profile.

    Raises:
        ConfigError: when an option is invalid, or the page would replace the data.
    """
    _check_output(data, output_file, PAGE_MARK)
    profile = build_profile(data, options)
    json.dumps(profile)  # fails before the page is written if the profile is not plain data
    write_text(output_file, render_page(profile))
    return profile


def _check_output(data: InspectedData, output_file: str | Path, mark: str) -> None:
    """Make sure that only an earlier output of the same command is replaced.

    Args:
        data: the files that were read.
        output_file: the file to write.
        mark: occurs in the first lines of every output of the command.

    Raises:
        ConfigError: when the output is one of the files that were read, another file that is not ours, or a folder.
    """
    target = Path(output_file)
    if target.is_dir():
        raise ConfigError(
            "This is a folder",
            where=str(target),
            expected="a file",
            next_step="choose another --output_file",
            code="output-unusable",
        )
    refuse_overwriting_inputs([target], data.files.values())
    if os.path.lexists(target) and not has_marker(target, mark):
        raise ConfigError(
            "A file that this command did not write would be replaced",
            where=str(target),
            next_step="move it away, or choose another --output_file",
            code="output-foreign",
        )
