"""Writes files and folders atomically: under a temporary name in the same folder, then renamed into place.

No command overwrites its own input: `find_overwritten_input` compares device and inode, so another spelling of a path,
a relative path or a link does not get past it.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

from sentifactory.errors import ConfigError
from sentifactory.system.file_lock import lock_file
from sentifactory.system.stop_signals import note_kept

_SHOWN_CHARS = 40  # of the target's name in a temporary name, which must stay below the file system's limit
_HEAD_BYTES = 4096
_SCRATCH = "sentifactory-"  # marks our temporary folders
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
_NO_PLACE = frozenset(
    {
        errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.EIO,
        errno.ESTALE, errno.ENXIO, errno.EBUSY,
    }
)  # fmt: skip


def explain_os_error(error: OSError, place: str | Path) -> ConfigError | None:
    """Return the error message for a full disk, a missing permission or an unusable path; None for other errors."""
    if error.errno in _DISK_FULL:
        return ConfigError(
            "No space is left on the disk",
            where=str(place),
            next_step="free some space and run the same command",
            code="disk-full",
        )
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return ConfigError(
            "No permission to write here",
            where=str(place),
            next_step="choose another output folder",
            code="output-unwritable",
        )
    if error.errno in _NO_PLACE:
        return ConfigError(
            f"This path cannot be used ({error.strerror})",
            where=str(place),
            next_step="choose another path",
            code="output-unusable",
        )
    return None


@contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn an OSError raised while writing into a ConfigError.

    Raises:
        ConfigError: when the disk is full, or the path cannot be written.
    """
    try:
        yield
    except OSError as error:
        explained = explain_os_error(error, path)
        if explained is None and error.errno == errno.ENOENT and not path.parent.exists():
            explained = ConfigError(
                "The parent folder cannot be created, or was removed in the meantime",
                where=str(path),
                next_step="choose another path, or run the same command again",
                code="output-unusable",
            )
        if explained is None:
            raise
        raise explained from error


def find_overwritten_input(output: str | Path, inputs: Iterable[str | Path | None]) -> Path | None:
    """Return the first input that the output is identical to or a parent folder of; None if there is none.

    The comparison is by device and inode. Parent folders are those of the path as given and of its resolved target.

    Args:
        output: a file or folder, which need not exist.
        inputs: files and folders; paths that do not exist, such as hub ids, are skipped.
    """
    try:
        place = Path(output).expanduser().resolve().stat()  # a folder before `..` need not exist
    except (OSError, RuntimeError, ValueError):  # missing, a loop of links, no name of a file: nothing to overwrite
        return None
    for given in inputs:
        path = Path(given or "").expanduser()
        if given is None or not path.exists():
            continue
        for start in dict.fromkeys((path.absolute(), path.resolve())):
            if any(os.path.samestat(place, folder.stat()) for folder in (start, *start.parents)):
                return path
    return None


def refuse_overwriting_inputs(
    outputs: Iterable[str | Path | None], inputs: Iterable[str | Path | None], option: str = "--output_file"
) -> None:
    """Refuse outputs that would replace an input.

    Args:
        outputs: paths that will be written; None is skipped.
        inputs: paths that are read.
        option: the command-line option that names the outputs.

    Raises:
        ConfigError: when an output is an input or a parent folder of one.
    """
    given = list(inputs)
    for output in outputs:
        if output is not None and (found := find_overwritten_input(output, given)) is not None:
            raise ConfigError(
                f"The output {output} would replace the input {found}",
                where=option,
                expected="a path that is not an input",
                next_step=f"choose another {option}",
                code="output-is-input",
            )


def has_marker(path: Path, mark: str) -> bool:
    """Return whether a path is a file whose first bytes contain our marker."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return mark.encode() in stream.read(_HEAD_BYTES)


def make_parents(target: Path) -> list[Path]:
    """Create the parent folders of `target`; return the newly created ones, deepest first."""
    missing = list(takewhile(lambda folder: not folder.exists(), target.parents))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        remove_empty(missing)
        raise
    return missing


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove the folders that are empty, in the given order."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def _keep_new_parents(target: Path) -> Iterator[None]:
    """Create the parent folders of `target`; if the block fails, remove the new ones that are still empty."""
    made = make_parents(target)
    try:
        yield
    except BaseException:
        remove_empty(made)
        raise


def _name_temporary(target: Path, suffix: str, infix: str = "") -> Path:
    """Return an unguessable temporary path in the target's folder."""
    return target.parent / f".{target.name[:_SHOWN_CHARS]}.{infix}{secrets.token_hex(8)}{suffix}"


def _create_file(path: Path) -> int:
    """Create a file that must not exist yet, with the permissions that the umask allows."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _copy_mode(temporary: Path, target: Path) -> None:
    """Give the replacement the permissions of the existing target."""
    if target.exists():
        former, own = (stat.S_IMODE(path.stat().st_mode) & 0o777 for path in (target, temporary))
        if former != own:
            temporary.chmod(former)


def _refuse_special_file(target: Path) -> None:
    """Refuse to replace a device, a pipe or a socket by a file.

    Raises:
        ConfigError: when the target is one of these.
    """
    if target.exists() and not target.is_file() and not target.is_dir():
        raise ConfigError(
            "This path exists and is not a regular file; it would be replaced",
            where=str(target),
            expected="a regular file, or a path that does not exist yet",
            next_step="choose another path",
            code="output-unusable",
        )


@contextmanager
def _replace_file(target: Path) -> Iterator[int]:
    """Yield the descriptor of a temporary file; the caller closes it, and it then replaces the target."""
    with explain_os_errors(target), _keep_new_parents(target):
        _refuse_special_file(target)
        temporary = _name_temporary(target, ".part")
        descriptor = _create_file(temporary)
        try:
            yield descriptor
            _copy_mode(temporary, target)
            temporary.replace(target)
            note_kept(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def open_atomic(path: str | Path, *, newline: str | None = None) -> Iterator[IO[str]]:
    """Open a UTF-8 text file that appears under `path` only if the block ends without an error.

    Bytes of a file name that are not UTF-8 are written as escapes, which JSON and YAML read back as the same name.

    Raises:
        ConfigError: when the disk is full or the path cannot be written.
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


def write_new(path: str | Path, content: bytes, expected: str) -> None:
    """Write a file that carries no marker of ours: only a new one, or one whose bytes are already the same.

    Args:
        path: the file.
        content: the whole content.
        expected: what the path may hold, for the error message.

    Raises:
        ConfigError: when the path holds another file, or cannot be written.
    """
    place = Path(path)
    if not os.path.lexists(place):
        write_bytes(place, content)
    elif not place.is_file() or place.read_bytes() != content:
        raise ConfigError(
            "Another file exists here and would be replaced",
            where=str(place),
            expected=expected,
            next_step="move it away, or choose another name",
            code="output-foreign",
        )


def place_new(source: Path, target: Path) -> None:
    """Rename a file without ever replacing another.

    Raises:
        FileExistsError: when the new name exists, also as a dangling link.
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
def _lock_parent(target: Path) -> Iterator[bool]:
    """Lock the target's parent folder; yield whether the file system supports locks."""
    parent = os.open(target.parent, os.O_RDONLY)
    try:
        yield lock_file(parent, target, waits=True)
    finally:
        os.close(parent)


@contextmanager
def _make_temporary_folder(target: Path) -> Iterator[Path]:
    """Create a temporary folder next to `target`, locked for as long as this process uses it.

    Unlocked folders of this kind are leftovers of killed processes and are removed. A former target that a killed
    process had moved aside is put back if the target does not exist.
    """
    leftovers = f"{escape(f'.{target.name[:_SHOWN_CHARS]}.{_SCRATCH}')}*"
    # The lock on the parent keeps other processes from removing a new folder before it is locked itself. Without locks
    # leftovers cannot be told from folders in use, so none is removed.
    with _lock_parent(target) as is_locked:
        for doomed in target.parent.glob(f"{leftovers}.old") if is_locked else ():
            _restore(doomed, target)
        for leftover in target.parent.glob(f"{leftovers}.part") if is_locked else ():
            if leftover.is_dir() and not leftover.is_symlink() and not _is_locked(leftover):
                shutil.rmtree(leftover, ignore_errors=True)
        temporary = _name_temporary(target, ".part", _SCRATCH)
        temporary.mkdir()
        descriptor = os.open(temporary, os.O_RDONLY)
        lock_file(descriptor, target, waits=True)
    try:
        yield temporary
    finally:
        os.close(descriptor)


def _restore(doomed: Path, target: Path) -> None:
    """Put back a folder that a killed process had moved aside, unless the target exists again."""
    former = doomed / target.name
    if not doomed.is_symlink() and os.path.lexists(former) and not os.path.lexists(target):
        former.rename(target)
    remove_empty([doomed])


def _is_locked(folder: Path) -> bool:
    """Return whether a running process holds the lock of a temporary folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except (FileNotFoundError, PermissionError):  # removed meanwhile, or another user's
        return True
    try:
        return not lock_file(descriptor, folder, warns=False)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


@contextmanager
def open_scratch_folder(beside: Path) -> Iterator[Path]:
    """Yield an empty folder next to a file and remove it at the end, with any leftovers of killed processes.

    Raises:
        ConfigError: when the disk is full or the path cannot be written.
    """
    with explain_os_errors(beside), _make_temporary_folder(beside) as folder:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def replace_directory(path: str | Path, refuse_former: Callable[[Path], object] | None = None) -> Iterator[Path]:
    """Yield a temporary folder that replaces `path` only if the block ends without an error.

    The former folder is removed after the new one is in place. Leftovers of killed processes are removed first.

    Args:
        path: the folder.
        refuse_former: raises if the existing folder must not be replaced; called just before and after it is moved.

    Raises:
        ConfigError: when the disk is full or the path cannot be written.
    """
    target = Path(path)
    with explain_os_errors(target), _keep_new_parents(target), _make_temporary_folder(target) as temporary:
        try:
            yield temporary
            with _lock_parent(target):
                _swap_folders(temporary, target, refuse_former or (lambda _: None))
            note_kept(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _swap_folders(temporary: Path, target: Path, refuse_former: Callable[[Path], object]) -> None:
    if not os.path.lexists(target):
        temporary.rename(target)
        return
    refuse_former(target)
    _copy_mode(temporary, target)
    doomed = _name_temporary(target, ".old", _SCRATCH)
    doomed.mkdir()
    former = doomed / target.name
    target.rename(former)
    try:
        refuse_former(former)  # again, for files added at the last moment; nothing finds the folder by its name now
        temporary.rename(target)
    except BaseException:
        former.rename(target)
        doomed.rmdir()
        raise
    remains = doomed.rename(doomed.with_suffix(".part"))  # if killed now, the next run removes this leftover
    shutil.rmtree(remains, ignore_errors=True)
