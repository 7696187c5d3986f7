"""Writes a prepared data set in forms that people, pandas and LLaMA-Factory read, and registers it."""

from __future__ import annotations

import csv
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sentifactory.atomic import write_json
from sentifactory.corpus.cleaning import Rejected
from sentifactory.errors import DataError
from sentifactory.records import Review, Split
from sentifactory.task import Task

MANIFEST = "manifest.json"
REJECTED = "rejected.csv"
DATASET_INFO = "dataset_info.json"
# The test part is not here: what LLaMA-Factory cannot name it cannot train on by mistake.
REGISTERED_PARTS = ("train", "val")
_PART_FILES = {"train.csv", "val.csv", "test.csv", "train.jsonl", "val.jsonl"}
OUR_FILES = frozenset(_PART_FILES | {REJECTED, MANIFEST})


def write_parts(folder: Path, split: Split, rejected: Sequence[Rejected], task: Task) -> list[str]:
    """Write the parts and the rejected rows into a folder, and return the names of the files.

    A part without reviews gets no file. The folder is one of `atomic.replace_directory`: it counts when it is whole.
    """
    written = []
    for part, reviews in split.parts().items():
        if not reviews:
            continue
        _write_csv(folder / f"{part}.csv", reviews, task)
        written.append(f"{part}.csv")
        if part in REGISTERED_PARTS:
            _write_jsonl(folder / f"{part}.jsonl", reviews, task)
            written.append(f"{part}.jsonl")
    _write_rejected(folder / REJECTED, rejected, task)
    return [*written, REJECTED]


def _write_csv(path: Path, reviews: Sequence[Review], task: Task) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        stream.write("label,text\n")
        # Texts are always quoted: csv's minimal quoting leaves a lone carriage return bare, which no reader survives.
        rows = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        rows.writerows((_answer_of(review, task), review.text) for review in reviews)


def _write_jsonl(path: Path, reviews: Sequence[Review], task: Task) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        for review in reviews:
            line = {"messages": task.render_messages(review.text, review.label)}
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")


def _write_rejected(path: Path, rejected: Sequence[Rejected], task: Task) -> None:
    def find_place(item: Rejected) -> tuple[str, int]:
        source = item.review.source
        return (source.file, source.line) if source else ("", 0)

    with path.open("w", encoding="utf-8", newline="") as stream:
        stream.write("file,line,reason,detail,label,text\n")
        rows = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        for item in sorted(rejected, key=find_place):
            label = _answer_of(item.review, task)
            rows.writerow([*find_place(item), str(item.reason), item.detail, label, item.review.text])


def _answer_of(review: Review, task: Task) -> int | str:
    """Return the answer value of a review's label: what the reader takes first when the file is read back."""
    return "" if review.label is None else task.answer_values[review.label]


def describe_dataset(name: str, part: str) -> dict[str, Any]:
    """Return the entry of a part in LLaMA-Factory's dataset_info.json."""
    return {
        "file_name": f"{name}/{part}.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    }


def read_dataset_info(data_folder: Path, name: str) -> dict[str, Any]:
    """Return the entries of dataset_info.json, {} where there is no such file.

    Raises:
        DataError: when it is broken, or when an entry that is not ours has a name that we need.
    """
    path = data_folder / DATASET_INFO
    if not path.exists():
        return {}
    mend = "mend the file; it is never overwritten"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise DataError("The file is not UTF-8", where=str(path), next_step=mend) from error
    except (ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"The file is not JSON ({error})", where=f"{path}{line}", next_step=mend) from error
    if not isinstance(entries, dict):
        raise DataError(
            f"The file holds a {type(entries).__name__}", where=str(path), expected="a JSON object", next_step=mend
        )
    for part in REGISTERED_PARTS:
        key = f"{name}_{part}"
        ours = describe_dataset(name, part)["file_name"]
        if key in entries and (not isinstance(entries[key], dict) or entries[key].get("file_name") != ours):
            raise DataError(
                f"The data set {key!r} is registered already, and it is not {ours}",
                where=str(path),
                next_step="choose another --name, or remove that entry",
            )
    return entries


def register_datasets(data_folder: Path, name: str, parts: Sequence[str]) -> list[str]:
    """Merge the entries `<name>_<part>` into dataset_info.json and return their names.

    All other entries stay as they are; an entry of ours for a part that no longer exists goes. The file is replaced in
    one step, and left alone when nothing changes.

    Raises:
        DataError: as `read_dataset_info`.
    """
    with _hold_folder(data_folder):
        before = read_dataset_info(data_folder, name)
        after = dict(before)
        for part in REGISTERED_PARTS:
            if part in parts:
                after[f"{name}_{part}"] = describe_dataset(name, part)
            else:
                after.pop(f"{name}_{part}", None)
        if after != before or not (data_folder / DATASET_INFO).exists():
            write_json(data_folder / DATASET_INFO, after)
    return [f"{name}_{part}" for part in REGISTERED_PARTS if part in parts]


@contextmanager
def _hold_folder(folder: Path) -> Iterator[None]:
    """Let one process at a time read, change and write in a folder, so that no entry is lost between two."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
