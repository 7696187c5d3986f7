"""Outputs are written under a temporary name beside their place and renamed, so that nothing half-written stays.

No command replaces what it reads: `find_endangered` tells outputs that are inputs, by whatever name they are called.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

from sentifactory.errors import ConfigError
from sentifactory.file_lock import lock_file

_SHOWN_CHARS = 40  # of a name in that of its temporary file, which must not be too long where the name is not
_SCRATCH = "sentifactory-"  # in the names of temporary folders: no user's own is called so
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
_NO_PLACE = frozenset(
    {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.EIO, errno.ESTALE}
)


def explain_os_error(error: OSError, place: str | Path) -> ConfigError | None:
    """Return the sentence for a full disk, a forbidden place or one that there cannot be; None for other errors."""
    if error.errno in _DISK_FULL:
        return ConfigError(
            "No room is left on the disk", where=str(place), next_step="free some space and run the same command"
        )
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return ConfigError("This place may not be written", where=str(place), next_step="choose another output folder")
    if error.errno in _NO_PLACE:
        return ConfigError(
            f"This place cannot be used ({error.strerror})", where=str(place), next_step="choose another one"
        )
    return None


@contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn an error of writing a place into a sentence.

    Raises:
        ConfigError: when the disk is full, or the place may not or cannot be written.
    """
    try:
        yield
    except OSError as error:
        if (explained := explain_os_error(error, path)) is None:
            raise
        raise explained from error


def find_endangered(output: str | Path, inputs: Iterable[str | Path | None]) -> Path | None:
    """Return the first input that an output is the same as, or a folder around; None where there is none.

    Compared are device and inode: a relative path, a link or another spelling is no other place. The folders around an
    input are those of its path as it is given and of the place that its links lead to.

    Args:
        output: a file or folder, which need not exist.
        inputs: files and folders; what does not exist here, such as the id of a model on a hub, is passed over.
    """
    try:
        place = Path(output).expanduser().resolve().stat()  # a folder before `..` need not exist
    except (OSError, RuntimeError):  # a circle of links
        return None  # where nothing stands, nothing is replaced
    for given in inputs:
        path = Path(given or "").expanduser()
        if given is None or not path.exists():
            continue
        for start in dict.fromkeys((path.absolute(), path.resolve())):
            if any(os.path.samestat(place, folder.stat()) for folder in (start, *start.parents)):
                return path
    return None


def refuse_endangered(
    outputs: Iterable[str | Path | None], inputs: Iterable[str | Path | None], option: str = "--output_file"
) -> None:
    """Refuse outputs that would replace an input.

    Args:
        outputs: what will be written; None is passed over.
        inputs: what is read.
        option: by which the user chose the outputs.

    Raises:
        ConfigError: when an output is an input, or a folder around one.
    """
    given = list(inputs)
    for output in outputs:
        if output is not None and (found := find_endangered(output, given)) is not None:
            raise ConfigError(
                f"The output {output} would replace {found}, which is read",
                where=option,
                expected="a place of its own",
                next_step=f"choose another {option}",
            )


def make_parents(target: Path) -> list[Path]:
    """Make the folders above `target`; return those that were not there, the deepest first."""
    missing = list(takewhile(lambda folder: not folder.exists(), target.parents))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        remove_empty(missing)
        raise
    return missing


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, the deepest first; one that somebody has put something into stays."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def _keep_new_parents(target: Path) -> Iterator[None]:
    """Make the folders above `target`; when the block fails, remove those that were not there and are empty again."""
    made = make_parents(target)
    try:
        yield
    except BaseException:
        remove_empty(made)
        raise


@contextmanager
def _replace_file(target: Path) -> Iterator[int]:
    """Give the descriptor of a temporary file, which whoever uses it closes and which then takes the place."""
    with explain_os_errors(target), _keep_new_parents(target):
        descriptor, name = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.name[:_SHOWN_CHARS]}.", suffix=".part"
        )
        temporary = Path(name)
        try:
            yield descriptor
            temporary.chmod(0o644)  # mkstemp makes files that only their owner may read
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def open_atomic(path: str | Path, *, newline: str | None = None) -> Iterator[IO[str]]:
    """Open a UTF-8 text file that appears under `path` only when the block ends without an error.

    Bytes of a file name that are not UTF-8 are written as escapes, which JSON and YAML read back as the same name.

    Raises:
        ConfigError: when the disk is full or the place may not be written.
    """
    with (
        _replace_file(Path(path)) as descriptor,
        os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline=newline) as stream,
    ):
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a whole file atomically; raises what `open_atomic` raises."""
    with _replace_file(Path(path)) as descriptor, os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def place_new(source: Path, target: Path) -> None:
    """Rename a file, and replace none.

    Raises:
        FileExistsError: when there is a file or link of the new name.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        source.rename(target)
    else:
        source.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a whole text file atomically; raises what `open_atomic` raises."""
    with open_atomic(path, newline="") as stream:
        stream.write(text)


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as readable JSON atomically; raises what `open_atomic` raises."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


@contextmanager
def _make_temporary_folder(target: Path) -> Iterator[Path]:
    """Make a folder beside `target` that is locked as long as this process works on it; a lock dies with its process.

    Folders of this kind that nobody holds are leftovers of killed processes: they are removed.
    """
    prefix = f".{target.name[:_SHOWN_CHARS]}.{_SCRATCH}"
    parent = os.open(target.parent, os.O_RDONLY)
    try:
        # So that nobody takes a folder that is not locked yet for a leftover. Without locks nobody knows a leftover.
        is_locked = lock_file(parent, target, waits=True)
        for leftover in target.parent.glob(f"{escape(prefix)}*.part") if is_locked else ():
            if leftover.is_dir() and not leftover.is_symlink() and not _is_held(leftover):
                shutil.rmtree(leftover, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix, suffix=".part"))
        descriptor = os.open(temporary, os.O_RDONLY)
        lock_file(descriptor, target, waits=True)
    finally:
        os.close(parent)
    try:
        yield temporary
    finally:
        os.close(descriptor)


def _is_held(folder: Path) -> bool:
    """Whether a living process works on a temporary folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        return not lock_file(descriptor, folder, tells=False)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


@contextmanager
def open_scratch_folder(beside: Path) -> Iterator[Path]:
    """Give an empty folder beside a file, which is removed at the end; so is what killed processes left of this kind.

    Raises:
        ConfigError: when the disk is full or the place may not be written.
    """
    with explain_os_errors(beside), _make_temporary_folder(beside) as folder:
        try:
            folder.chmod(0o755)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def replace_directory(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder that takes the place of `path` only when the block ends without an error.

    An older folder of that name is removed after the new one stands in its place. What a killed process left behind
    under a temporary name is removed first.

    Raises:
        ConfigError: when the disk is full or the place may not be written.
    """
    target = Path(path)
    with explain_os_errors(target), _keep_new_parents(target), _make_temporary_folder(target) as temporary:
        try:
            temporary.chmod(0o755)
            yield temporary
            if target.exists():
                doomed = Path(
                    tempfile.mkdtemp(
                        dir=target.parent, prefix=f".{target.name[:_SHOWN_CHARS]}.{_SCRATCH}", suffix=".old"
                    )
                )
                target.rename(doomed / target.name)
                temporary.rename(target)
                shutil.rmtree(doomed, ignore_errors=True)
            else:
                temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
