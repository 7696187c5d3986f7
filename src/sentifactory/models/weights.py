"""The weight files of a checkpoint: which they are, and how they are written so that a full disk is told apart."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from sentifactory.corpus.manifest import hash_file
from sentifactory.progress import show_progress

if TYPE_CHECKING:
    import torch


WEIGHT_PATTERNS = ("*.safetensors", "*.bin", "*.gguf", "*.onnx", "*.onnx.data")
TRAINER_STATE = "training_args.bin"  # fits a pattern and holds no weights; a published model does not have it


def list_weights(folder: str | Path) -> list[Path]:
    """Return the weight files of a model folder."""
    files = (file for pattern in WEIGHT_PATTERNS for file in Path(folder).glob(pattern))
    return sorted(file for file in files if file.name != TRAINER_STATE)


def hash_weights(folder: str | Path) -> dict[str, str]:
    """Return the SHA-256 of each weight file of a model folder, by file name."""
    return {file.name: _hash_weight_file(file) for file in list_weights(folder)}


def _hash_weight_file(file: Path) -> str:
    """Return the SHA-256 of a file, read once as long as it is the same file, unchanged: weights may be gigabytes."""
    state = file.stat()
    return _hash_in_state(file.resolve(), state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _hash_in_state(file: Path, _inode: int, _size: int, _mtime_ns: int) -> str:
    return hash_file(file)


def save_weights(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write one safetensors file.

    Raises:
        OSError: with its proper error number, also where safetensors reports a full disk in words only.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    size_mb = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) // 10**6
    with show_progress(f"Saving {size_mb} MB of weights"):
        try:
            save_file(dict(tensors), str(path), metadata={"format": "pt"})
        except SafetensorError as error:
            if f"os error {errno.ENOSPC}" in str(error):
                raise OSError(errno.ENOSPC, "No space left on device", str(path)) from error
            raise
    # safetensors makes files that only their owner may read.
    path.chmod(0o644)
