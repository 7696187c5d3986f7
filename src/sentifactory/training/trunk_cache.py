"""Keeps what the frozen layers give for each sample, on disk for later runs, or in memory where there is no place.

One file for each frozen trunk and prefix (its name is a hash of all that the states depend on), with one record for
each sample: the hash of its token ids, its length, a checksum and the states. So another tokenizer, other data or
another cut-off find no record, and reviews that stayed the same find theirs. A record counts only when it is whole: a
run that is killed while it writes leaves a tail that the next one cuts off. The states are read with plain reads, and
what was read lately stays in the system's page cache; a memory map would die of a full disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from sentifactory.errors import ConfigError

FOLDER_VARIABLE = "SENTIFACTORY_CACHE_DIR"
LIMIT_VARIABLE = "SENTIFACTORY_TRUNK_CACHE_GIB"
DEFAULT_LIMIT_GIB = 8.0
_GIB = 1 << 30
# Room that the cache leaves on the disk, for checkpoints.
_SPARE_BYTES = 4 * _GIB
_HEADER = struct.Struct("<4s16sQI")  # mark, hash of the token ids, bytes of the states, their CRC-32
_MARK = b"STR1"


def find_cache_folder() -> Path:
    """Return where caches are kept: in SENTIFACTORY_CACHE_DIR, or the user's cache folder (XDG_CACHE_HOME)."""
    if own := os.environ.get(FOLDER_VARIABLE):
        return Path(own).expanduser() / "trunk"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sentifactory" / "trunk"


def read_limit() -> int:
    """Return how many bytes all caches together may take, from SENTIFACTORY_TRUNK_CACHE_GIB.

    Raises:
        ConfigError: when the variable holds no number, or a negative one.
    """
    word = os.environ.get(LIMIT_VARIABLE, str(DEFAULT_LIMIT_GIB))
    try:
        limit = float(word)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise ConfigError(f"{LIMIT_VARIABLE} is {word!r}", expected="a number of GiB, 0 for no cache")
    return int(limit * _GIB)


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
        OSError: when the file cannot be made, or another process holds it (BlockingIOError).
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._limit = limit_bytes
        self._places: dict[bytes, tuple[int, int, int]] = {}  # offset, length, checksum
        self._is_writable = True
        self._stream = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
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


class TrunkCache:
    """Hidden states of samples, in a storage.

    Args:
        storage: where they are kept.
        hidden_size: H.
        dtype: of the states as the frozen layers give them.
    """

    def __init__(self, storage: Storage, hidden_size: int, dtype: Any) -> None:
        self.storage = storage
        self._hidden_size = hidden_size
        self._dtype = dtype
        self.hits = self.misses = 0

    def close(self) -> None:
        """Let other runs have the storage."""
        self.storage.close()

    def allocate(self, samples: int, length: int) -> Any:
        """Return zeros (samples, length, H) on the CPU."""
        import torch

        return torch.zeros(samples, length, self._hidden_size, dtype=self._dtype)

    def read(self, key: bytes, target: Any) -> bool:
        """Fill `target` (n, H), a contiguous part of what `allocate` gave; False where the sample is not there."""
        is_there = len(target) == 0 or self.storage.fetch(key, _view_bytes(target))
        self.hits += is_there
        self.misses += not is_there
        return is_there

    def write(self, key: bytes, states: Any) -> None:
        """Keep the states (n, H) of a sample."""
        if len(states) and states.dtype == self._dtype:
            self.storage.keep(key, _view_bytes(states.contiguous()))


def _view_bytes(states: Any) -> memoryview:
    import torch

    return memoryview(states.reshape(-1).view(torch.uint8).numpy())


def hash_trunk(tensors: Iterable[Any], facts: Mapping[str, Any]) -> str:
    """Return a hash of weights and of everything else that hidden states depend on."""
    import torch

    digest = hashlib.blake2b(digest_size=20)
    digest.update(repr(sorted(facts.items())).encode())
    for tensor in tensors:
        flat = tensor.detach().to("cpu").contiguous().reshape(-1)
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def open_storage(find_name: Callable[[], str], needed_bytes: int, limit_bytes: int) -> tuple[Storage | None, str]:
    """Return a storage for a trunk, and where it is in words; None where nothing may be kept.

    Caches of other trunks that were not used for longest are removed where the limit asks for it.

    Args:
        find_name: computes the trunk's hash, which takes a while for a large model.
        needed_bytes: the states of all samples.
        limit_bytes: what all caches together may take.
    """
    if limit_bytes == 0:
        return None, f"nothing is kept, as {LIMIT_VARIABLE} is 0"
    folder = find_cache_folder()
    path = folder / f"{find_name()}.trunk"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_oldest(folder, path, limit_bytes - min(needed_bytes, limit_bytes))
        held = path.stat().st_size if path.exists() else 0
        if shutil.disk_usage(folder).free - max(0, min(needed_bytes, limit_bytes) - held) > _SPARE_BYTES:
            return FileStorage(path, limit_bytes), f"in {path}"
        reason = "the disk is nearly full"
    except BlockingIOError:
        reason = "another run uses the file"
    except OSError:
        reason = f"{folder} cannot be written"
    return MemoryStorage(min(limit_bytes, _read_free_memory() // 4)), f"in memory, as {reason}"


def _remove_oldest(folder: Path, own: Path, room: int) -> None:
    """Remove other caches, the longest unused first, until the rest fits into `room` bytes."""
    others = sorted((path for path in folder.glob("*.trunk") if path != own), key=lambda path: path.stat().st_mtime)
    total = sum(path.stat().st_size for path in others)
    for path in others:
        if total <= room:
            return
        with path.open("rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # in use
            total -= path.stat().st_size
            path.unlink()


def _read_free_memory() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return _GIB
