"""Locks on open files and folders, released by the kernel when the process ends; continues where locks are missing.

Network and container file systems may lack locks (NFS without its lock daemon, Lustre without `flock`, some FUSE and
9p mounts): the kernel answers ENOLCK, EOPNOTSUPP or ENOSYS. Without a lock, the work is still safe as long as only one
process does it, so the user is warned and the work continues.

The package filelock is not used: it has no shared locks without a database, its descriptor lock polls where the kernel
can wait, only ENOSYS counts as missing locks, and the set-up runs before any package is installed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from pathlib import Path
from typing import IO, Any

from sentifactory.errors import ConfigError

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
_WARNED_FOLDERS: set[str] = set()


def refuse_links(path: str, flags: int) -> int:
    """Open a file without following a symbolic link at its path (ELOOP); for `open(..., opener=refuse_links)`."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def open_lock(path: Path) -> IO[bytes]:
    """Open a lock file, keeping its content.

    Raises:
        ConfigError: when it cannot be opened, or is a link.
    """
    try:
        return open(path, "a+b", opener=refuse_links)  # NFS shares a lock only on what is open for reading
    except OSError as error:
        raise ConfigError(
            f"The lock file cannot be opened ({error.strerror})",
            where=str(path),
            next_step="choose another folder, or move it away",
            code="no-locks",
        ) from error


def lock_file(
    file: int | IO[Any], place: Path, *, waits: bool = False, is_shared: bool = False, warns: bool = True
) -> bool:
    """Lock an open file or folder until every process that has it open closes it.

    Args:
        file: the open file, or its descriptor.
        place: the path that the lock protects, for the warning.
        waits: wait for the process that holds the lock.
        is_shared: take a shared lock, which several processes may hold.
        warns: warn if the file system has no locks, once per folder.

    Returns:
        Whether it is locked; False if its file system has no locks.

    Raises:
        BlockingIOError: when another process holds the lock and `waits` is False.
        OSError: when locking fails for another reason.
    """
    kind = (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | (0 if waits else fcntl.LOCK_NB)
    try:
        fcntl.flock(file, kind)
    except OSError as error:
        if not lacks_locks(error):
            raise
        folder = str(place.parent)
        if warns and folder not in _WARNED_FOLDERS:
            _WARNED_FOLDERS.add(folder)
            print(
                f"The file system of {folder} has no file locks ({os.strerror(error.errno or 0)}): continuing "
                "without; do not run a second command that writes there at the same time.",
                file=sys.stderr,
                flush=True,
            )
        return False
    return True


def lacks_locks(error: BaseException) -> bool:
    """Return whether an error means that the file system has no locks."""
    return isinstance(error, OSError) and error.errno in _NO_LOCKS


def explain_missing_locks(error: OSError) -> ConfigError:
    """Return the error for a lock that a library cannot take in its cache, which is under HF_HOME."""
    return ConfigError(
        f"A library cannot lock a file: its file system has no file locks ({error.strerror})",
        where=str(error.filename or os.environ.get("HF_HOME") or "~/.cache/huggingface"),
        next_step="set HF_HOME to a folder on a local disk, and run the same command",
        code="no-locks",
    )
