"""Builds a pretrained model into its folder once: under a temporary name, one process at a time, sealed at the end.

The seal is a small JSON file with the source's checksum, the format version and the SHA-256 of every file. A folder
with a seal that fits is left alone; a folder without one is somebody else's and is never touched.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sentifactory import atomic
from sentifactory.corpus.manifest import hash_file
from sentifactory.errors import ConfigError
from sentifactory.file_lock import lock_file, open_lock
from sentifactory.json_object import read_json_object
from sentifactory.models.registry import DTYPES, PretrainedModel, get_model
from sentifactory.progress import say

SEAL_NAME = "sentifactory_model.json"
_BYTES_PER_PARAMETER = {"float32": 4, "bfloat16": 2}
# The tokenizer and the small files beside the weights.
_ROOM_BESIDE_WEIGHTS_BYTES = 100 * 10**6


def fetch_pretrained(name: str, output_dir: Path, dtype: str = "float32") -> Path:
    """Return the folder of a pretrained model, building it unless it stands there already.

    Args:
        name: a name from the registry table, such as `gemma-3-270m`.
        output_dir: the folder in which the model's own folder lies.
        dtype: of the weights, `float32` or `bfloat16`.

    Raises:
        ConfigError: unknown name or dtype; missing or damaged package; a folder of that name that is not ours, is
            incomplete or has another dtype; no room on the disk.
    """
    model = get_model(name)
    if dtype not in DTYPES:
        raise ConfigError(f"There is no dtype {dtype!r} here", expected=f"one of {', '.join(DTYPES)}")
    folder = output_dir / name
    with _hold_folder(folder):
        if is_complete(folder, model, dtype):
            say(f"{folder} is there and complete: nothing to do")
            return folder
        _check_room(folder, model.parameter_count * _BYTES_PER_PARAMETER[dtype] + _ROOM_BESIDE_WEIGHTS_BYTES)
        with atomic.replace_directory(folder) as temporary:
            model.build(temporary, dtype)
            _seal(temporary, model, dtype)
        say(f"{folder} is ready")
    return folder


def read_seal(folder: Path) -> dict[str, Any]:
    """Return what the seal of a fetched model says (name, dtype, hashes); {} where there is none that can be read."""
    return read_json_object(folder / SEAL_NAME) or {}


def is_complete(folder: Path, model: PretrainedModel, dtype: str) -> bool:
    """Return whether the folder holds this model; False means that it may be (re)built there.

    Raises:
        ConfigError: when something stands there that must not be replaced without asking.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    remedy = f"move {folder} away and run the same command again, or choose another --output_dir"
    try:
        seal = read_seal(folder)
        found = (seal["name"], seal["source_sha256"], seal["format_version"], seal["dtype"], dict(seal["files"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"Something stands here that `sentifactory model fetch {model.name}` did not finish",
            where=str(folder),
            expected=f"no such folder, or one with a valid {SEAL_NAME}",
            next_step=remedy,
        ) from error
    if found[:2] != (model.name, model.source_sha256):
        raise ConfigError("Another model stands here", where=str(folder), expected=model.name, next_step=remedy)
    if found[2] != model.format_version:
        if strangers := {path.name for path in folder.iterdir()} - {SEAL_NAME, *found[4]}:
            raise ConfigError(
                f"The model is to be built anew, and other files stand here: {', '.join(sorted(strangers))}",
                where=str(folder),
                expected="the files that `sentifactory model fetch` wrote, and no others",
                next_step=remedy,
            )
        say(f"{folder} was built by another version of SentiFactory: building it anew")
        return False
    if found[3] != dtype:
        raise ConfigError(f"The model stands here in {found[3]}", where=str(folder), expected=dtype, next_step=remedy)
    for file, sha256 in found[4].items():
        path = folder / file
        if not path.is_file() or hash_file(path) != sha256:
            raise ConfigError(
                "This file of the model is missing or is not what was written",
                where=str(path),
                expected=f"a file with the SHA-256 {sha256}",
                next_step=remedy,
            )
    return True


def _seal(folder: Path, model: PretrainedModel, dtype: str) -> None:
    seal: dict[str, Any] = {
        "name": model.name,
        "package": model.package,
        "source_sha256": model.source_sha256,
        "format_version": model.format_version,
        "dtype": dtype,
        "files": {path.name: hash_file(path) for path in sorted(folder.iterdir())},
    }
    atomic.write_json(folder / SEAL_NAME, seal)


def _check_room(folder: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder.parent).free
    if free_bytes < needed_bytes:
        raise ConfigError(
            f"{free_bytes / 1e9:.1f} GB are free and the model takes {needed_bytes / 1e9:.1f} GB",
            where=str(folder),
            next_step="free some space and run the same command",
        )


@contextmanager
def _hold_folder(folder: Path) -> Iterator[None]:
    """Let one process build a folder at a time."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stream = open_lock(folder.parent / f".{folder.name}.lock")
    except OSError as error:
        raise ConfigError(
            f"This place may not be written ({error.strerror})",
            where=str(folder.parent),
            next_step="choose another --output_dir",
        ) from error
    with stream:
        try:
            lock_file(stream, folder)
        except BlockingIOError:
            say(f"another process is building {folder}: waiting for it")
            lock_file(stream, folder, waits=True)
        yield
