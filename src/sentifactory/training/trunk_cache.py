"""Keeps what the frozen layers give for each sample, on disk for later runs, or in memory where there is no place.

One file for each frozen trunk and prefix (its name is a hash of all that the states depend on), with one record for
each sample, under the hash of its token ids. So another tokenizer, other data or another cut-off find no record, and
reviews that stayed the same find theirs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.file_lock import lacks_locks, lock_file
from sentifactory.training.trunk_storage import FileStorage, MemoryStorage, Storage

FOLDER_VARIABLE = "SENTIFACTORY_CACHE_DIR"
LIMIT_VARIABLE = "SENTIFACTORY_TRUNK_CACHE_GIB"
DEFAULT_LIMIT_GIB = 8.0
_GIB = 1 << 30
# Room that the cache leaves on the disk, for checkpoints.
_SPARE_BYTES = 4 * _GIB


def find_cache_folder() -> Path:
    """Return where caches are kept: in SENTIFACTORY_CACHE_DIR, or the user's cache folder (XDG_CACHE_HOME)."""
    if own := os.environ.get(FOLDER_VARIABLE):
        return Path(own).expanduser() / "trunk"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sentifactory" / "trunk"


def read_limit(wish_gib: float | None = None) -> int:
    """Return how many bytes all caches together may take.

    Args:
        wish_gib: the user's; None: SENTIFACTORY_TRUNK_CACHE_GIB, or 8.

    Raises:
        ConfigError: when the variable holds no number, or a negative one.
    """
    if wish_gib is not None:
        return int(wish_gib * _GIB)
    word = os.environ.get(LIMIT_VARIABLE, str(DEFAULT_LIMIT_GIB))
    try:
        limit = float(word)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise ConfigError(f"{LIMIT_VARIABLE} is {word!r}", expected="a number of GiB, 0 for no cache")
    return int(limit * _GIB)


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
        return None, "nothing may be kept"
    share = f", of which {limit_bytes / 2**20:.0f} MiB fit the limit" if needed_bytes > limit_bytes else ""
    folder = find_cache_folder()
    path = folder / f"{find_name()}.trunk"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_oldest(folder, path, limit_bytes - min(needed_bytes, limit_bytes))
        held = path.stat().st_size if path.exists() else 0
        if shutil.disk_usage(folder).free - max(0, min(needed_bytes, limit_bytes) - held) > _SPARE_BYTES:
            return FileStorage(path, limit_bytes), f"in {path}{share}"
        reason = "the disk is nearly full"
    except BlockingIOError:
        reason = "another run uses the file"
    except OSError as error:
        reason = f"the file system of {folder} has no locks" if lacks_locks(error) else f"{folder} cannot be written"
    return MemoryStorage(min(limit_bytes, _read_free_memory() // 4)), f"in memory, as {reason}{share}"


def _remove_oldest(folder: Path, own: Path, room: int) -> None:
    """Remove other caches, the longest unused first, until the rest fits into `room` bytes."""
    others = sorted((path for path in folder.glob("*.trunk") if path != own), key=lambda path: path.stat().st_mtime)
    total = sum(path.stat().st_size for path in others)
    for path in others:
        if total <= room:
            return
        with path.open("r+b") as stream:  # NFS locks only what may be written
            try:
                if not lock_file(stream, path, tells=False):
                    return  # nobody knows which are in use
            except OSError:
                continue  # in use
            total -= path.stat().st_size
            path.unlink()


def _read_free_memory() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return _GIB
