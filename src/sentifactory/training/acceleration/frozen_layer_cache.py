"""Caches the output of the frozen layers for each sample: on disk for later runs, or in memory where the disk is full.

One file per set of frozen layers and prefix, named by a hash of everything that the hidden states depend on, with one
record per sample, keyed by a hash of its token ids. Another tokenizer, other data or another cut-off length find no
record; unchanged reviews find theirs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.system.file_lock import lacks_locks, lock_file
from sentifactory.system.hardware import read_available_memory
from sentifactory.system.ranks import count_local_ranks
from sentifactory.training.acceleration.cache_storage import FileStorage, MemoryStorage, Storage, name_lock

FOLDER_VARIABLE = "SENTIFACTORY_CACHE_DIR"
LIMIT_VARIABLE = "SENTIFACTORY_TRUNK_CACHE_GIB"
DEFAULT_LIMIT_GIB = 8.0
_GIB = 1 << 30
# Disk space left free for checkpoints.
_SPARE_BYTES = 4 * _GIB  # of the disk, for checkpoints and whatever else is written meanwhile
_SMALL_SHARE = 20  # a twentieth of the free space or less is no danger to anything, however full the disk is


def find_cache_folder() -> Path:
    """Return the folder of the caches: in SENTIFACTORY_CACHE_DIR, or the user's cache folder (XDG_CACHE_HOME)."""
    if own := os.environ.get(FOLDER_VARIABLE):
        return Path(own).expanduser() / "trunk"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sentifactory" / "trunk"


def read_limit(limit_gib: float | None = None) -> int:
    """Return how many bytes all caches together may take.

    Args:
        limit_gib: the user's option; None: SENTIFACTORY_TRUNK_CACHE_GIB, or 8.

    Raises:
        ConfigError: when the variable is not a number of 0 or more.
    """
    if limit_gib is not None:
        return int(limit_gib * _GIB)
    word = os.environ.get(LIMIT_VARIABLE, str(DEFAULT_LIMIT_GIB))
    try:
        limit = float(word)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise ConfigError(
            f"{LIMIT_VARIABLE} is {word!r}", expected="a number of GiB, 0 for no cache", code="option-value"
        )
    return int(limit * _GIB)


class FrozenLayerCache:
    """Reads and writes the hidden states of samples in a storage.

    Args:
        storage: holds the bytes.
        hidden_size: H.
        dtype: of the frozen layers' output.
    """

    def __init__(self, storage: Storage, hidden_size: int, dtype: Any) -> None:
        self.storage = storage
        self._hidden_size = hidden_size
        self._dtype = dtype
        self.hits = self.misses = 0

    def close(self) -> None:
        """Close the storage, so that other runs can use it."""
        self.storage.close()

    def allocate(self, samples: int, length: int) -> Any:
        """Return zeros (samples, length, H) on the CPU."""
        import torch

        return torch.zeros(samples, length, self._hidden_size, dtype=self._dtype)

    def read(self, key: bytes, target: Any) -> bool:
        """Fill `target` (n, H), a contiguous slice of an `allocate` result; return False for an unknown sample."""
        is_cached = len(target) == 0 or self.storage.read(key, _view_bytes(target))
        self.hits += is_cached
        self.misses += not is_cached
        return is_cached

    def write(self, key: bytes, states: Any) -> None:
        """Store the states (n, H) of a sample."""
        if len(states) and states.dtype == self._dtype:
            self.storage.write(key, _view_bytes(states.contiguous()))


def _view_bytes(states: Any) -> memoryview:
    import torch

    return memoryview(states.reshape(-1).view(torch.uint8).numpy())


def hash_frozen_layers(tensors: Iterable[Any], facts: Mapping[str, Any]) -> str:
    """Return a hash of the weights and of everything else that the hidden states depend on."""
    import torch

    digest = hashlib.blake2b(digest_size=20)
    digest.update(repr(sorted(facts.items())).encode())
    for tensor in tensors:
        flat = tensor.detach().to("cpu").contiguous().reshape(-1)
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def open_storage(find_name: Callable[[], str], needed_bytes: int, limit_bytes: int) -> tuple[Storage | None, str]:
    """Return a storage, and a phrase that says where it is; None where nothing may be cached.

    Other caches are removed, least recently used first, where the limit requires it.

    Args:
        find_name: computes the hash that names the file, which takes a while for a large model.
        needed_bytes: size of the states of all samples.
        limit_bytes: space for all caches together.
    """
    if limit_bytes == 0:
        return None, "the limit is 0"
    share = f", of which {limit_bytes / 2**20:.0f} MiB fit the limit" if needed_bytes > limit_bytes else ""
    folder = find_cache_folder()
    path = folder / f"{find_name()}.trunk"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_oldest(folder, path, limit_bytes - min(needed_bytes, limit_bytes))
        held = path.stat().st_size if path.exists() else 0
        missing, free = max(0, min(needed_bytes, limit_bytes) - held), shutil.disk_usage(folder).free
        if missing < free / _SMALL_SHARE or free - missing > _SPARE_BYTES:
            return FileStorage(path, limit_bytes), f"in {path}{share}"
        reason = "the disk is nearly full"
    except BlockingIOError:
        reason = "another run is removing the file"
    except OSError as error:
        reason = f"the file system of {folder} has no locks" if lacks_locks(error) else f"{folder} cannot be written"
    held_bytes = min(limit_bytes, (read_available_memory() or _GIB) // 4) // count_local_ranks()
    return MemoryStorage(held_bytes), f"in memory, as {reason}{share}"


def _remove_oldest(folder: Path, own: Path, limit_bytes: int) -> None:
    """Remove other caches, least recently used first, until the rest fits into the limit."""
    others = sorted((path for path in folder.glob("*.trunk") if path != own), key=lambda path: path.stat().st_mtime)
    total = sum(path.stat().st_size for path in others)
    for path in others:
        if total <= limit_bytes:
            return
        with path.open("r+b") as stream:  # NFS locks only files that are open for writing
            try:
                if not lock_file(stream, path, warns=False):
                    return  # without locks there is no telling which are in use
            except OSError:
                continue  # in use
            total -= path.stat().st_size
            name_lock(path).unlink(missing_ok=True)
            path.unlink()
