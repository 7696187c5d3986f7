"""Registers data sets in LLaMA-Factory's dataset_info.json: merged, never overwritten, replaced in one step."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sentifactory.atomic import write_json
from sentifactory.corpus.export import ALPACA, SHAREGPT, is_registered
from sentifactory.corpus.limits import check_depth
from sentifactory.errors import DataError
from sentifactory.file_lock import lock_file

DATASET_INFO = "dataset_info.json"
_OUR_PLACE = re.compile(r"(fold_\d+/)?(train|val)\.jsonl")


def name_dataset(name: str, part: str) -> str:
    """Return the name under which a part is registered.

    Example:
        >>> name_dataset("hotel", "fold_0/train")
        'hotel_fold_0_train'
    """
    return f"{name}_{part.replace('/', '_')}"


def describe_dataset(name: str, part: str, formatting: str = SHAREGPT) -> dict[str, Any]:
    """Return the entry of a part in LLaMA-Factory's dataset_info.json."""
    if formatting == ALPACA:
        return {
            "file_name": f"{name}/{part}.jsonl",
            "formatting": ALPACA,
            "columns": {"prompt": "instruction", "query": "input", "response": "output"},
        }
    return {
        "file_name": f"{name}/{part}.jsonl",
        "formatting": SHAREGPT,
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    }


def read_dataset_info(data_folder: Path, name: str, parts: Sequence[str] = ("train", "val")) -> dict[str, Any]:
    """Return the entries of dataset_info.json, {} where there is no such file.

    Raises:
        DataError: when it is broken, or when an entry that is not ours has a name that we need.
    """
    path = data_folder / DATASET_INFO
    if not path.exists():
        return {}
    mend = "mend the file; it is never overwritten"
    try:
        content = path.read_text(encoding="utf-8")
        entries = json.loads(content)
        check_depth(entries, content)
    except UnicodeDecodeError as error:
        raise DataError("The file is not UTF-8", where=str(path), next_step=mend) from error
    except (ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        why = "nested too deep" if isinstance(error, RecursionError) else error
        raise DataError(f"The file is not JSON ({why})", where=f"{path}{line}", next_step=mend) from error
    if not isinstance(entries, dict):
        raise DataError(
            f"The file holds a {type(entries).__name__}", where=str(path), expected="a JSON object", next_step=mend
        )
    for part in filter(is_registered, parts):
        key = name_dataset(name, part)
        if key in entries and not _is_ours(entries[key], name):
            raise DataError(
                f"The data set {key!r} is registered already, and it is not {name}/{part}.jsonl",
                where=str(path),
                next_step="choose another --name, or remove that entry",
            )
    return entries


def _is_ours(entry: Any, name: str) -> bool:
    """Whether an entry names a file that a run of this package writes for the data set of that name."""
    file = entry.get("file_name") if isinstance(entry, dict) else None
    return isinstance(file, str) and file.startswith(f"{name}/") and bool(_OUR_PLACE.fullmatch(file[len(name) + 1 :]))


def register_datasets(data_folder: Path, name: str, parts: Sequence[str], formatting: str = SHAREGPT) -> list[str]:
    """Merge the entries `<name>_<part>` into dataset_info.json and return their names.

    All other entries stay as they are; an entry of ours for a part that no longer exists goes. The file is replaced in
    one step, and left alone when nothing changes.

    Raises:
        DataError: as `read_dataset_info`.
    """
    ours = {name_dataset(name, part): part for part in parts if is_registered(part)}
    with _hold_folder(data_folder):
        before = read_dataset_info(data_folder, name, list(ours.values()))
        stale = {
            key
            for key, entry in before.items()
            if key not in ours and key.startswith(f"{name}_") and _is_ours(entry, name)
        }
        after = {key: entry for key, entry in before.items() if key not in stale}
        after |= {key: describe_dataset(name, part, formatting) for key, part in ours.items()}
        if after != before or not (data_folder / DATASET_INFO).exists():
            write_json(data_folder / DATASET_INFO, after)
    return list(ours)


@contextmanager
def _hold_folder(folder: Path) -> Iterator[None]:
    """Let one process at a time read, change and write in a folder, so that no entry is lost between two."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock_file(descriptor, folder / DATASET_INFO, waits=True)
        yield
    finally:
        os.close(descriptor)
