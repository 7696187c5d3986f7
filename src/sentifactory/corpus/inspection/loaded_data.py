"""Loads the data to inspect: a data set that `data prepare` wrote, or a single file. Nothing is changed."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentifactory.clean_text import normalise_text
from sentifactory.corpus.dataset.dataset_files import REJECTED
from sentifactory.corpus.files.limits import MAX_ROW_CHARS
from sentifactory.corpus.reading.read_result import ReadOptions
from sentifactory.corpus.reading.review_files import read_source
from sentifactory.errors import DataError
from sentifactory.records import Reason, Review
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.json_text import read_json
from sentifactory.task.model_folder import MANIFEST, find_task_record
from sentifactory.task.reports_folder import find_data_reports
from sentifactory.task.task import Task
from sentifactory.task.task_choice import choose_task

# Of folds the val parts are inspected: together they hold every review once.
FOLDS = "fold_*/val.csv"
SINGLE_PART = "file"


@dataclass(frozen=True, slots=True)
class RejectedEntry:
    """A row that is in none of the parts, as `rejected.csv` lists it."""

    file: str
    line: int
    reason: str
    detail: str
    text: str


@dataclass(frozen=True, slots=True)
class InspectedData:
    """Reviews by part, and where they came from.

    Attributes:
        name: of the data set, or of the file.
        is_prepared: whether `data prepare` wrote it; if not, there is one part, `file`.
        task: names the labels.
        parts: reviews with a text, by part.
        files: the file of each part.
        hashes: SHA-256 of each of these files.
        rejected_rows: rows that are in no part.
        manifest: the content of manifest.json; {} for a single file.
        manifest_sha256: of the bytes of manifest.json; "" for a single file.
        outputs: name of each part's file in the manifest.
        encoding: the text encoding of a single file.
    """

    name: str
    is_prepared: bool
    task: Task
    parts: dict[str, list[Review]]
    files: dict[str, str]
    hashes: dict[str, str]
    rejected_rows: list[RejectedEntry]
    manifest: dict[str, Any] = field(default_factory=dict)
    manifest_sha256: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    encoding: str | None = None

    def reviews(self) -> list[Review]:
        """Return the reviews of all parts, in the order of the parts."""
        return [review for part in self.parts.values() for review in part]

    def part_of(self) -> list[str]:
        """Return the part of each review of `reviews()`."""
        return [name for name, part in self.parts.items() for _ in part]

    def find_reports_folder(self) -> Path:
        """Return the folder for pages and lists about these reviews."""
        return find_data_reports(next(iter(self.files.values())))

    def changed_files(self) -> list[str]:
        """Return the part files whose hash differs from that in the manifest."""
        stated = self.manifest.get("outputs", {})
        return [name for part, name in self.outputs.items() if stated.get(name, {}).get("sha256") != self.hashes[part]]

    def count_copies(self) -> dict[str, int]:
        """Return how many rows of each part are copies from up-sampling, according to the manifest."""
        return {part: int(self.manifest.get("parts", {}).get(part, {}).get("copies", 0)) for part in self.parts}


def load_inspected(
    name_or_file: str,
    *,
    dataset_dir: str | Path = "data",
    task_name: str | None = None,
    options: ReadOptions | None = None,
) -> InspectedData:
    """Load a prepared data set by its name or folder, or a single file of reviews.

    Args:
        name_or_file: a file, a folder that `data prepare` wrote, or its name under `dataset_dir`.
        dataset_dir: the folder that holds the prepared data sets.
        task_name: name or YAML file of the task; None: that of the manifest next to them, else binary sentiment.
        options: how to read a single file.

    Raises:
        DataError: when there is no such data, or it cannot be used.
        ConfigError: when there is no such task, or the manifest has another one.
    """
    path = Path(name_or_file)
    if path.is_file():
        return _load_file(path, choose_task(task_name, data=[path]).announce().task, options)
    for folder in (path, Path(dataset_dir) / name_or_file):
        if (folder / MANIFEST).is_file():
            return _load_folder(folder, task_name)
    root = Path(dataset_dir)
    known = sorted(found.parent.name for found in root.glob(f"*/{MANIFEST}")) if root.is_dir() else []
    raise DataError(
        f"There is no file and no prepared data set {name_or_file!r}",
        expected=f"a file of reviews, or the name of a data set in {dataset_dir}"
        + (f" ({', '.join(known)})" if known else ""),
        next_step=f"check the path, or run sentifactory data prepare {name_or_file}",
        code="data-missing",
    )


def _load_file(path: Path, task: Task, options: ReadOptions | None) -> InspectedData:
    result = read_source(path, task, options, can_map=False)
    rejected_rows = [
        RejectedEntry(row.source.file, row.source.line, str(row.reason), row.detail, row.text)
        for row in result.rejected
    ]
    kept = []
    for review in result.reviews:
        if normalise_text(review.text):
            kept.append(review)
        else:
            line = review.source.line if review.source else 0
            rejected_rows.append(RejectedEntry(str(path), line, str(Reason.EMPTY), "", review.text))
    return InspectedData(
        name=path.name,
        is_prepared=False,
        task=task,
        parts={SINGLE_PART: kept},
        files={SINGLE_PART: str(path)},
        hashes={SINGLE_PART: result.inputs[0].sha256},
        rejected_rows=sorted(rejected_rows, key=lambda row: row.line),
        encoding=result.encoding,
    )


def _load_folder(folder: Path, task_name: str | None) -> InspectedData:
    manifest = _read_manifest(folder / MANIFEST)
    task = choose_task(task_name, data=[folder]).announce().task
    files = _find_parts(folder)
    if not files:
        raise DataError(
            "The folder has none of the files train.csv, val.csv and test.csv",
            where=str(folder),
            next_step=f"run sentifactory data prepare {manifest.get('source', '')}".rstrip(),
            code="data-missing",
        )
    results = {part: read_source(path, task, can_map=False) for part, path in files.items()}
    return InspectedData(
        name=str(manifest.get("name", folder.name)),
        is_prepared=True,
        task=task,
        parts={part: result.reviews for part, result in results.items()},
        files={part: str(path) for part, path in files.items()},
        hashes={part: result.inputs[0].sha256 for part, result in results.items()},
        rejected_rows=list(_iter_rejected(folder / REJECTED)),
        manifest=manifest,
        manifest_sha256=hash_file(folder / MANIFEST),
        outputs={part: path.relative_to(folder).as_posix() for part, path in files.items()},
    )


def _find_parts(folder: Path) -> dict[str, Path]:
    """Return the file of each part: train, val and test, or the folds and test."""
    found = [folder / name for name in ("train.csv", "val.csv") if (folder / name).is_file()]
    found = found or sorted(folder.glob(FOLDS), key=lambda path: int(path.parent.name.removeprefix("fold_")))
    found += [path for path in (folder / "test.csv",) if path.is_file()]
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}


def _read_manifest(path: Path) -> dict[str, Any]:
    again = "run sentifactory data prepare again"
    try:
        manifest = read_json(path)
    except ValueError as error:
        raise DataError(
            f"The manifest is not JSON ({error})", where=str(path), next_step=again, code="manifest-broken"
        ) from error
    if not isinstance(manifest, dict) or find_task_record(path.parent) is None:
        raise DataError("The manifest names no task", where=str(path), next_step=again, code="manifest-broken")
    return manifest


def _iter_rejected(path: Path) -> Iterator[RejectedEntry]:
    """Yield the rows of rejected.csv, none where there is no such file.

    Raises:
        DataError: when `data prepare` did not write the file.
    """
    if not path.is_file():
        return
    previous = csv.field_size_limit(MAX_ROW_CHARS)
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream, strict=True):
                line = int(row["line"])
                yield RejectedEntry(row["file"], line, row["reason"], row.get("detail") or "", row["text"] or "")
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"The list of rejected rows is broken ({error})",
            where=str(path),
            next_step="run sentifactory data prepare again",
            code="manifest-broken",
        ) from error
    finally:
        csv.field_size_limit(previous)
