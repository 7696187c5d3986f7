"""Locks on files and folders that end with their process, and what is done on file systems that have none.

Network and container file systems may lack them (NFS without its lock daemon, Lustre without `flock`, some FUSE and 9p
mounts): the kernel answers ENOLCK, EOPNOTSUPP or ENOSYS. What is locked here is safe without a lock as long as one
process alone works on it, so that is said and the work goes on. Standard library only: the set-up needs it as well.
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
_TOLD: set[str] = set()


def refuse_links(path: str, flags: int) -> int:
    """Open a file that we keep under a known name; for `open(..., opener=refuse_links)`.

    A link that somebody planted there is not followed: opening it fails with ELOOP.
    """
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def open_lock(path: Path) -> IO[bytes]:
    """Open the file of a lock; what stands in it stays.

    Raises:
        ConfigError: when it cannot be opened, or is a link.
    """
    try:
        return open(path, "ab", opener=refuse_links)
    except OSError as error:
        raise ConfigError(
            f"The file of a lock cannot be opened ({error.strerror})",
            where=str(path),
            next_step="remove it where it is a link, or choose another folder",
        ) from error


def lock_file(
    file: int | IO[Any], place: Path, *, waits: bool = False, is_shared: bool = False, tells: bool = True
) -> bool:
    """Lock an open file or folder until it is closed by every process that has it.

    Args:
        file: the open file, or its descriptor.
        place: what the lock guards, for the sentence where there are no locks.
        waits: wait for the process that holds it.
        is_shared: others may hold it as well, if they share it too.
        tells: say where there are no locks; once for each folder.

    Returns:
        Whether it is locked; False where its file system has no locks.

    Raises:
        BlockingIOError: when another process holds it and we do not wait.
        OSError: when it cannot be locked for another reason.
    """
    kind = (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | (0 if waits else fcntl.LOCK_NB)
    try:
        fcntl.flock(file, kind)
    except OSError as error:
        if not lacks_locks(error):
            raise
        folder = str(place.parent)
        if tells and folder not in _TOLD:
            _TOLD.add(folder)
            print(
                f"The file system of {folder} has no file locks ({os.strerror(error.errno or 0)}): going on without; "
                "let no second command write there meanwhile.",
                file=sys.stderr,
                flush=True,
            )
        return False
    return True


def lacks_locks(error: BaseException) -> bool:
    """Return whether an error says that a file system has no locks."""
    return isinstance(error, OSError) and error.errno in _NO_LOCKS


def explain_missing_locks(error: OSError) -> ConfigError:
    """Return the sentence for a library's own lock that cannot be taken: it keeps what it fetched under HF_HOME."""
    return ConfigError(
        f"A library cannot lock a file: its file system has no file locks ({error.strerror})",
        where=str(error.filename or os.environ.get("HF_HOME") or "~/.cache/huggingface"),
        next_step="set HF_HOME to a folder on a local disk, and run the same command",
    )
