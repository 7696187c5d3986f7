"""Identifies a checkpoint by the hashes of its weights and settings, and writes weights.

A folder's name does not identify a checkpoint, because its content can be replaced or retrained.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.system.fingerprint import hash_file
from sentifactory.system.json_text import parse_json, read_json_object
from sentifactory.system.progress import show_progress

if TYPE_CHECKING:
    import torch


WEIGHT_PATTERNS = ("*.safetensors", "*.bin", "*.gguf", "*.onnx", "*.onnx.data")
TRAINER_STATE = "training_args.bin"  # matches a pattern but holds no weights, and is not published
ADAPTER_CONFIG = "adapter_config.json"
# Suffixes of files that may be pickles, which execute code when loaded.
PICKLE_ENDINGS = (".bin", ".ckpt", ".h5", ".joblib", ".npy", ".pickle", ".pkl", ".pt", ".pth")
# Architecture, labels, tokenizer, chat template, an ONNX export's tokenizer settings, the parts of a stack.
SETTING_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    "chat_template.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt",
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", ADAPTER_CONFIG, "export.json",
    "stack.json",
)  # fmt: skip


def list_weights(folder: str | Path) -> list[Path]:
    """Return the weight files of a model folder."""
    files = (file for pattern in WEIGHT_PATTERNS for file in Path(folder).glob(pattern))
    return sorted(file for file in files if file.name != TRAINER_STATE)


def hash_weights(folder: str | Path) -> dict[str, str]:
    """Return the SHA-256 of each weight file of a model folder, by file name."""
    return {file.name: _hash_weight_file(file) for file in list_weights(folder)}


def hash_settings(folder: str | Path) -> dict[str, str]:
    """Return the SHA-256 of each settings file of a model; {} if `folder` is not a folder."""
    files = (Path(folder) / name for name in SETTING_FILES)
    return {file.name: hash_file(file) for file in files if file.is_file()}


def identify_checkpoint(model: str | Path) -> dict[str, Any]:
    """Return the identity of a checkpoint, as JSON values; equal identities mean the same model.

    It consists of the hashes of weights and settings, for a LoRA adapter also those of its base model. A name that is
    not a local folder (a hub id) is identified by the name alone.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return {"name": str(model)}
    found: dict[str, Any] = {"weights": hash_weights(folder), "settings": hash_settings(folder)}
    base = (read_json_object(folder / ADAPTER_CONFIG) or {}).get("base_model_name_or_path")
    return found | ({"base": identify_checkpoint(str(base))} if base else {})


def _hash_weight_file(file: Path) -> str:
    """Return the SHA-256 of a file, cached until the file changes, because weights may be gigabytes."""
    state = file.stat()
    return _hash_in_state(file.resolve(), state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _hash_in_state(file: Path, _inode: int, _size: int, _mtime_ns: int) -> str:
    return hash_file(file)


def list_shards(index: Path) -> list[str] | None:
    """Return the names of the files in an index of weights; None where it is no index."""
    weight_map = (read_json_object(index) or {}).get("weight_map")
    return sorted({str(name) for name in weight_map.values()}) if isinstance(weight_map, dict) else None


def read_stated_length(path: Path) -> int | None:
    """Return the length in bytes that the header of a safetensors file states; None where there is no whole header."""
    with path.open("rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > path.stat().st_size:
            return None
        try:
            header = parse_json(stream.read(length).decode())
            ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, AttributeError, LookupError, TypeError):
            return None
    return 8 + length + max(ends, default=0)


def save_weights(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write one safetensors file.

    Raises:
        OSError: with ENOSPC for a full disk, which safetensors reports in its message only.
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
    # safetensors creates files that only their owner can read.
    path.chmod(0o644)


def share_weights(folder: str | Path) -> None:
    """Let whoever may read a model's settings read its weights, which safetensors creates for their owner only.

    So a service that runs as another user, as in a container, can load the model. The settings have the permissions
    that the umask allows.

    Args:
        folder: of a model or an adapter.
    """
    settings = (Path(folder) / name for name in ("config.json", ADAPTER_CONFIG))
    allowed = next((file.stat().st_mode & 0o444 for file in settings if file.is_file()), 0)
    for file in Path(folder).glob("*.safetensors"):
        own = stat.S_IMODE(file.stat().st_mode)
        if own | allowed != own:
            file.chmod(own | allowed)
