"""Registers data sets in LLaMA-Factory's dataset_info.json: entries are merged, the file is replaced atomically."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from sentifactory.corpus.dataset.dataset_files import ALPACA, SHAREGPT, is_registered
from sentifactory.errors import DataError
from sentifactory.system.atomic import write_json
from sentifactory.system.file_lock import lock_file
from sentifactory.system.json_text import parse_json

DATASET_INFO = "dataset_info.json"
_OUR_FILE_NAME = re.compile(r"(fold_\d+/)?(train|val)\.jsonl")


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
        DataError: when it is broken, or an entry that is not ours has a name that we need.
    """
    path = data_folder / DATASET_INFO
    next_step = "fix the file; it is not overwritten"
    if not os.path.lexists(path):
        return {}
    if not path.is_file():
        raise DataError("This is not a file", where=str(path), next_step="move it away", code="data-index")
    try:
        content = path.read_text(encoding="utf-8")
        entries = parse_json(content, json.JSONDecoder(object_pairs_hook=_refuse_twice))
        if _read_exactly(content) != _read_exactly(json.dumps(entries)):
            raise ValueError("it holds a number that would change when the file is written again")
    except UnicodeDecodeError as error:
        raise DataError("The file is not UTF-8", where=str(path), next_step=next_step, code="data-index") from error
    except ValueError as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(
            f"The file is not JSON ({error})", where=f"{path}{line}", next_step=next_step, code="data-index"
        ) from error
    if not isinstance(entries, dict):
        raise DataError(
            f"The file holds a JSON {type(entries).__name__}",
            where=str(path),
            expected="a JSON object",
            next_step=next_step,
            code="data-index",
        )
    for part in filter(is_registered, parts):
        key = name_dataset(name, part)
        if key in entries and not _is_ours(entries[key], name):
            raise DataError(
                f"The data set {key!r} is registered already, and it is not {name}/{part}.jsonl",
                where=str(path),
                next_step="choose another --name, or give that entry another name",
                code="name-taken",
            )
    return entries


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object; of two entries with one name the first would be lost when the file is written again."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the name {twice!r} occurs twice")
    return found


def _read_exactly(content: str) -> Any:
    return json.loads(content, parse_float=Decimal, parse_constant=Decimal)


def _is_ours(entry: Any, name: str) -> bool:
    """Whether an entry names a file that this package writes for the data set of that name."""
    file = entry.get("file_name") if isinstance(entry, dict) else None
    return (
        isinstance(file, str) and file.startswith(f"{name}/") and bool(_OUR_FILE_NAME.fullmatch(file[len(name) + 1 :]))
    )


def register_datasets(data_folder: Path, name: str, parts: Sequence[str], formatting: str = SHAREGPT) -> list[str]:
    """Merge the entries `<name>_<part>` into dataset_info.json and return their names.

    All other entries stay as they are; an entry of ours for a part that no longer exists is removed. The file (of a
    link, its target) is replaced atomically, and not touched when nothing changes.

    Raises:
        DataError: like `read_dataset_info`.
    """
    ours = {name_dataset(name, part): part for part in parts if is_registered(part)}
    path = (data_folder / DATASET_INFO).resolve()
    with _lock_folder(path.parent):
        before = read_dataset_info(data_folder, name, list(ours.values()))
        stale = {
            key
            for key, entry in before.items()
            if key not in ours and key.startswith(f"{name}_") and _is_ours(entry, name)
        }
        after = {key: entry for key, entry in before.items() if key not in stale}
        after |= {key: describe_dataset(name, part, formatting) for key, part in ours.items()}
        if after != before or not path.exists():
            write_json(path, after)
    return list(ours)


@contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    """Let one process at a time read, change and write the file, so that no entry is lost."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock_file(descriptor, folder / DATASET_INFO, waits=True)
        yield
    finally:
        os.close(descriptor)
