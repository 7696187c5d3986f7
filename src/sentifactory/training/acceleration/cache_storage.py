"""Stores bytes under keys, in one file or in memory, for `frozen_layer_cache`.

Each record in the file carries its length and a checksum, and is valid only when complete: a run that is killed while
writing leaves a partial record, which the next run truncates. Records are read with plain reads and stay in the page
cache; a memory map would crash the process (SIGBUS) on a full disk.

Several processes may use one file at a time: the ranks of a distributed run, or two runs. Each appends under a lock,
after it has indexed what the others appended, so that a sample is stored once and every process finds it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from sentifactory.system.file_lock import lock_file, refuse_links

_HEADER = struct.Struct("<4s16sQI")  # mark, hash of the token ids, bytes of the states, their CRC-32
_MARK = b"STR1"


class Storage(Protocol):
    """Stores bytes under keys."""

    def close(self) -> None:
        """Release the storage."""

    def read(self, key: bytes, target: memoryview) -> bool:
        """Fill `target`, or return False where there is no record of this key and length."""

    def write(self, key: bytes, content: memoryview) -> None:
        """Store a copy, or do nothing where there is no space."""


class MemoryStorage:
    """Stores bytes in memory up to a limit."""

    def __init__(self, limit_bytes: int) -> None:
        self._records: dict[bytes, bytes] = {}
        self._free_bytes = limit_bytes

    def close(self) -> None:
        """Drop all records."""
        self._records.clear()

    def read(self, key: bytes, target: memoryview) -> bool:
        """Fill `target`, or return False where there is no record of this key and length."""
        found = self._records.get(key)
        if found is None or len(found) != len(target):
            return False
        target[:] = found
        return True

    def write(self, key: bytes, content: memoryview) -> None:
        """Store a copy, or do nothing where the limit is reached."""
        if len(content) <= self._free_bytes and key not in self._records:
            self._records[key] = bytes(content)
            self._free_bytes -= len(content)


class FileStorage:
    """Stores bytes in one append-only file, which several processes may share.

    A shared lock on the file says that it is in use; the process that appends locks a second one, `NAME.lock`.

    Raises:
        OSError: when a file cannot be created or locked, or another process is about to remove it (BlockingIOError).
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._limit = limit_bytes
        self._records: dict[bytes, tuple[int, int, int]] = {}  # offset, length, checksum
        self._is_writable = True
        self._stream = open(path, "a+b", buffering=0, opener=refuse_links)  # noqa: SIM115 - closed by `close`
        try:
            if not lock_file(self._stream, path, is_shared=True, warns=False):  # sharing it needs a lock
                raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), str(path))
            self._turn = open(name_lock(path), "a+b", buffering=0, opener=refuse_links)  # noqa: SIM115 - see above
        except OSError:
            self._stream.close()
            raise
        self._end = 0
        with self._take_turn():
            os.ftruncate(self._stream.fileno(), self._end)
        os.utime(path)

    @property
    def count(self) -> int:
        """Number of complete records."""
        return len(self._records)

    def close(self) -> None:
        """Close the file, so that another process can use it."""
        self._stream.close()
        self._turn.close()

    def read(self, key: bytes, target: memoryview) -> bool:
        """Fill `target`, or return False where there is no intact record of this key and length."""
        if key not in self._records and os.fstat(self._stream.fileno()).st_size > self._end:
            with self._take_turn():
                pass  # another process has appended records, which are indexed now
        record = self._records.get(key)
        if record is None:
            return False
        offset, length, checksum = record
        if length != len(target):
            return False
        is_intact = os.preadv(self._stream.fileno(), [target], offset) == length and zlib.crc32(target) == checksum
        if not is_intact:
            del self._records[key]
        return is_intact

    def write(self, key: bytes, content: memoryview) -> None:
        """Append a record; a full disk or a reached limit stops the caching, not the training."""
        if not self._is_writable or key in self._records:
            return
        size = _HEADER.size + len(content)
        checksum = zlib.crc32(content)
        header = _HEADER.pack(_MARK, key, len(content), checksum)
        with self._take_turn():
            if key in self._records or self._end + size > self._limit:
                return
            if os.fstat(self._stream.fileno()).st_size > self._end:  # a process was killed while it wrote
                os.ftruncate(self._stream.fileno(), self._end)
            try:
                written = os.writev(self._stream.fileno(), [header, content])
            except OSError:
                written = 0
            if written != size:
                self._is_writable = False
                os.ftruncate(self._stream.fileno(), self._end)
                return
            self._records[key] = (self._end + _HEADER.size, len(content), checksum)
            self._end += size

    @contextmanager
    def _take_turn(self) -> Iterator[None]:
        """Be the only process that appends within the block, with the records of all others indexed."""
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        try:
            self._end = self._read_index(self._end)
            yield
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def _read_index(self, offset: int) -> int:
        """Index every record from an offset on, and return where the last complete one ends."""
        descriptor, size = self._stream.fileno(), os.fstat(self._stream.fileno()).st_size
        while offset + _HEADER.size <= size:
            mark, key, length, checksum = _HEADER.unpack(os.pread(descriptor, _HEADER.size, offset))
            end = offset + _HEADER.size + length
            if mark != _MARK or end > size:
                break
            self._records[key] = (offset + _HEADER.size, length, checksum)
            offset = end
        return offset


def name_lock(path: Path) -> Path:
    """Return the file that is locked while a process appends to a storage file."""
    return path.with_suffix(".lock")
