"""Notices an input that changes while it is labelled: it is read several times, and its rows are matched by number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sentifactory.errors import DataError
from sentifactory.system.fingerprint import hash_file


class InputGuard:
    """Create it before the file is read for the first time.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = _read_state(path)

    def check(self, sha256: str | None = None) -> None:
        """Raise a DataError if the file was written since, or (when given) has another SHA-256."""
        try:
            is_same = _read_state(self._path) == self._state and (sha256 is None or hash_file(self._path) == sha256)
        except OSError:
            is_same = False
        if not is_same:
            raise self.explain_change()

    def explain_change(self) -> DataError:
        """Return the error of a file that changed."""
        return DataError(
            "The input changed while it was labelled",
            where=str(self._path),
            expected="a file that no program writes to meanwhile",
            next_step="restore the input and run the same command, which continues; or label a copy of the changed "
            "input into another output",
            code="input-changed",
        )

    @contextmanager
    def explain_failures(self) -> Iterator[None]:
        """Raise the DataError instead of whatever fails within the block because the file changed."""
        try:
            yield
        except Exception:
            self.check()
            raise


def _read_state(path: Path) -> tuple[int, int] | None:
    """Return size and time of the last write; None where there is no such file."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns
