"""Builds pretrained models from registry packages, each into its own folder.

`MODELS` maps a name to its package and builder; to add a model, write a module with `build_checkpoint(folder, dtype)`
and add an entry. A model is built in a temporary folder, by one process at a time, and sealed at the end. The seal is
a small JSON file with the source's checksum, the format version and the SHA-256 of every file. A folder with a valid
seal is reused; a folder without one is never changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.models.embedded import e5, gemma
from sentifactory.system import atomic
from sentifactory.system.file_lock import lock_file, open_lock
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.json_text import read_json_object
from sentifactory.system.progress import say
from sentifactory.task.reports_folder import REPORTS

DTYPES = ("float32", "bfloat16")


SEAL_NAME = "sentifactory_model.json"
_BYTES_PER_PARAMETER = {"float32": 4, "bfloat16": 2}
# For the tokenizer and the small files.
_OTHER_FILES_BYTES = 100 * 10**6


def fetch_pretrained(name: str, output_dir: Path, dtype: str = "float32") -> Path:
    """Return the folder of a pretrained model, building it if necessary.

    Args:
        name: of the model in `MODELS`, such as `gemma-3-270m`.
        output_dir: the parent of the model's folder.
        dtype: of the weights, `float32` or `bfloat16`.

    Raises:
        ConfigError: for an unknown name or dtype, a missing or damaged package, a full disk, and a folder of that name
            that is not ours, is incomplete or has another dtype.
    """
    model = get_model(name)
    if dtype not in DTYPES:
        raise ConfigError(f"Unknown dtype {dtype!r}", expected=f"one of {', '.join(DTYPES)}")
    folder = output_dir / name
    with _lock_folder(folder):
        if is_complete(folder, model, dtype):
            say(f"{folder} is already complete: nothing to do")
            return folder
        _check_disk_space(folder, model.parameter_count * _BYTES_PER_PARAMETER[dtype] + _OTHER_FILES_BYTES)
        with atomic.replace_directory(folder, lambda former: is_complete(former, model, dtype)) as temporary:
            model.build(temporary, dtype)
            _seal(temporary, model, dtype)
        say(f"{folder} is ready")
    return folder


def read_seal(folder: Path) -> dict[str, Any]:
    """Return the seal of a fetched model (name, dtype, hashes); {} if it is missing or cannot be read."""
    return read_json_object(folder / SEAL_NAME) or {}


def is_complete(folder: Path, model: PretrainedModel, dtype: str) -> bool:
    """Return whether the folder holds this model; False if it may be (re)built there.

    Raises:
        ConfigError: when the folder holds something that must not be replaced.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    remedy = f"move {folder} away and run the same command again, or choose another --output_dir"
    try:
        seal = read_seal(folder)
        found = (seal["name"], seal["source_sha256"], seal["format_version"], seal["dtype"], _read_hashes(seal))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"This folder is not a complete model of `sentifactory model fetch {model.name}`",
            where=str(folder),
            expected=f"no such folder, or one with a valid {SEAL_NAME}",
            next_step=remedy,
        ) from error
    if found[:2] != (model.name, model.source_sha256):
        raise ConfigError("This folder holds another model", where=str(folder), expected=model.name, next_step=remedy)
    # An additional tokenizer or template would be loaded with the model.
    extra = {path.name for path in folder.iterdir()} - {SEAL_NAME, REPORTS, *found[4]}
    is_older = found[2] != model.format_version
    if not is_older:
        extra = {name for name in extra if not name.startswith(".")}  # a file manager's, which are never loaded
    if extra:
        raise ConfigError(
            f"The folder holds files that are not the model's: {', '.join(sorted(extra))[:300]}",
            where=str(folder),
            expected="only the files that `sentifactory model fetch` wrote",
            next_step=f"move them away, or {remedy}",
        )
    if is_older:
        say(f"{folder} was built by another version of SentiFactory: rebuilding it")
        return False
    if found[3] != dtype:
        raise ConfigError(
            f"This folder holds the model in {found[3]}", where=str(folder), expected=dtype, next_step=remedy
        )
    for file, sha256 in found[4].items():
        path = folder / file
        if path.is_symlink() or not path.is_file() or hash_file(path) != sha256:
            raise ConfigError(
                "This file of the model is missing or has changed",
                where=str(path),
                expected=f"a file with the SHA-256 {sha256}",
                next_step=remedy,
            )
    return True


def _read_hashes(seal: dict[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each file in a seal.

    Raises:
        TypeError, ValueError: when its form is invalid, or it names no files or files of another folder.
    """
    hashes = dict(seal["files"])
    if not hashes or any(Path(name).name != name for name in hashes):
        raise ValueError("not a valid seal")
    return hashes


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


def _check_disk_space(folder: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder.parent).free
    if free_bytes < needed_bytes:
        raise ConfigError(
            f"The model needs {needed_bytes / 1e9:.1f} GB, but only {free_bytes / 1e9:.1f} GB are free",
            where=str(folder),
            next_step="free some space and run the same command",
        )


@contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    """Let one process build a folder at a time."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stream = open_lock(folder.parent / f".{folder.name}.lock")
    except OSError as error:
        raise ConfigError(
            f"This folder cannot be written ({error.strerror})",
            where=str(folder.parent),
            next_step="choose another --output_dir",
        ) from error
    with stream:
        try:
            lock_file(stream, folder)
        except BlockingIOError:
            say(f"Another process is building {folder}: waiting for it")
            lock_file(stream, folder, waits=True)
        yield


@dataclass(frozen=True, slots=True)
class PretrainedModel:
    """A pretrained model.

    Attributes:
        name: of the model and its folder.
        package: the registry package that contains it.
        source_sha256: of the file assembled from the package's parts.
        format_version: increased when the output of `build` changes; older folders are then rebuilt.
        parameter_count: of the checkpoint, to estimate its size on disk.
        build: writes the checkpoint into an empty folder, with weights of the given dtype.
    """

    name: str
    package: str
    source_sha256: str
    format_version: int
    parameter_count: int
    build: Callable[[Path, str], None]


MODELS: dict[str, PretrainedModel] = {
    model.name: model
    for model in (
        PretrainedModel(
            name="gemma-3-270m",
            package=gemma.PACKAGE,
            source_sha256=gemma.GGUF_SHA256,
            format_version=gemma.FORMAT_VERSION,
            parameter_count=gemma.PARAMETER_COUNT,
            build=gemma.build_checkpoint,
        ),
        PretrainedModel(
            name="multilingual-e5-small",
            package=e5.PACKAGE,
            source_sha256=e5.WEIGHTS_SHA256,
            format_version=e5.FORMAT_VERSION,
            parameter_count=e5.PARAMETER_COUNT,
            build=e5.build_checkpoint,
        ),
    )
}


def get_model(name: str) -> PretrainedModel:
    """Return the model of that name.

    Raises:
        ConfigError: when there is none.
    """
    if name not in MODELS:
        raise ConfigError(f"Unknown pretrained model {name!r}", expected=f"one of {', '.join(sorted(MODELS))}")
    return MODELS[name]
