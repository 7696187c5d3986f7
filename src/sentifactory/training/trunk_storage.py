"""Keeps bytes under keys, in one file or in memory; the trunk cache stands on it.

In the file each record carries its length and a checksum and counts only when it is whole: a run that is killed while
it writes leaves a tail that the next one cuts off. Records are read with plain reads, and what was read lately stays
in the system's page cache; a memory map would die of a full disk.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from pathlib import Path
from typing import Protocol

from sentifactory.file_lock import lock_file, refuse_links

_HEADER = struct.Struct("<4s16sQI")  # mark, hash of the token ids, bytes of the states, their CRC-32
_MARK = b"STR1"


class Storage(Protocol):
    """Keeps bytes under a key."""

    def close(self) -> None:
        """Give back what the storage holds."""

    def fetch(self, key: bytes, target: memoryview) -> bool:
        """Fill `target`, or return False where there is nothing of this key and length."""

    def keep(self, key: bytes, content: memoryview) -> None:
        """Keep a copy, or leave it where there is no room."""


class MemoryStorage:
    """Keeps bytes in memory up to a limit."""

    def __init__(self, limit_bytes: int) -> None:
        self._kept: dict[bytes, bytes] = {}
        self._room = limit_bytes

    def close(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def fetch(self, key: bytes, target: memoryview) -> bool:
        """Fill `target`, or return False where there is nothing of this key and length."""
        found = self._kept.get(key)
        if found is None or len(found) != len(target):
            return False
        target[:] = found
        return True

    def keep(self, key: bytes, content: memoryview) -> None:
        """Keep a copy, or leave it where the limit is reached."""
        if len(content) <= self._room and key not in self._kept:
            self._kept[key] = bytes(content)
            self._room -= len(content)


class FileStorage:
    """Keeps bytes in one file that grows at its end; only one process at a time may hold it.

    Raises:
        OSError: when the file cannot be made or locked, or another process holds it (BlockingIOError).
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._limit = limit_bytes
        self._places: dict[bytes, tuple[int, int, int]] = {}  # offset, length, checksum
        self._is_writable = True
        self._stream = open(path, "a+b", buffering=0, opener=refuse_links)  # noqa: SIM115 - closed by `close`
        try:
            if not lock_file(self._stream, path, tells=False):  # runs share it unasked: not safe without a lock
                raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), str(path))
        except OSError:
            self._stream.close()
            raise
        self._end = self._read_index()
        os.ftruncate(self._stream.fileno(), self._end)
        os.utime(path)

    @property
    def count(self) -> int:
        """Number of whole records."""
        return len(self._places)

    def close(self) -> None:
        """Let another process have the file."""
        self._stream.close()

    def fetch(self, key: bytes, target: memoryview) -> bool:
        """Fill `target`, or return False where there is no intact record of this key and length."""
        place = self._places.get(key)
        if place is None:
            return False
        offset, length, checksum = place
        if length != len(target):
            return False
        is_whole = os.preadv(self._stream.fileno(), [target], offset) == length and zlib.crc32(target) == checksum
        if not is_whole:
            del self._places[key]
        return is_whole

    def keep(self, key: bytes, content: memoryview) -> None:
        """Append a record; a full disk or a reached limit ends the keeping, not the training."""
        size = _HEADER.size + len(content)
        if not self._is_writable or key in self._places or self._end + size > self._limit:
            return
        checksum = zlib.crc32(content)
        header = _HEADER.pack(_MARK, key, len(content), checksum)
        try:
            written = os.writev(self._stream.fileno(), [header, content])
        except OSError:
            written = 0
        if written != size:
            self._is_writable = False
            os.ftruncate(self._stream.fileno(), self._end)
            return
        self._places[key] = (self._end + _HEADER.size, len(content), checksum)
        self._end += size

    def _read_index(self) -> int:
        """Note every record, and return where the last whole one ends."""
        descriptor, size, offset = self._stream.fileno(), os.fstat(self._stream.fileno()).st_size, 0
        while offset + _HEADER.size <= size:
            mark, key, length, checksum = _HEADER.unpack(os.pread(descriptor, _HEADER.size, offset))
            end = offset + _HEADER.size + length
            if mark != _MARK or end > size:
                break
            self._places[key] = (offset + _HEADER.size, length, checksum)
            offset = end
        return offset
