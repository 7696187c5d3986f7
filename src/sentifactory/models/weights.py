"""The files of a checkpoint that decide what it answers, and weights written so that a full disk is told apart.

A checkpoint is known by the content of these files. A folder's name says nothing: another model may stand there
tomorrow, or the same one trained again.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.corpus.manifest import hash_file
from sentifactory.json_object import read_json_object
from sentifactory.progress import show_progress

if TYPE_CHECKING:
    import torch


WEIGHT_PATTERNS = ("*.safetensors", "*.bin", "*.gguf", "*.onnx", "*.onnx.data")
TRAINER_STATE = "training_args.bin"  # fits a pattern and holds no weights; a published model does not have it
ADAPTER_CONFIG = "adapter_config.json"
# Architecture, labels, tokenizer, chat template and, of an ONNX export, how a text becomes tokens.
SETTING_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    "chat_template.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt",
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", ADAPTER_CONFIG, "export.json",
)  # fmt: skip


def list_weights(folder: str | Path) -> list[Path]:
    """Return the weight files of a model folder."""
    files = (file for pattern in WEIGHT_PATTERNS for file in Path(folder).glob(pattern))
    return sorted(file for file in files if file.name != TRAINER_STATE)


def hash_weights(folder: str | Path) -> dict[str, str]:
    """Return the SHA-256 of each weight file of a model folder, by file name."""
    return {file.name: _hash_weight_file(file) for file in list_weights(folder)}


def hash_settings(folder: str | Path) -> dict[str, str]:
    """Return the SHA-256 of each file that decides what a model says beside its weights; {} for what is no folder."""
    files = (Path(folder) / name for name in SETTING_FILES)
    return {file.name: hash_file(file) for file in files if file.is_file()}


def identify_checkpoint(model: str | Path) -> dict[str, Any]:
    """Return what tells a checkpoint from every other one, as plain JSON values; equal ones are the same model.

    That is the content of its weights and settings, of a LoRA adapter also those of its base model. What is no folder
    here (a hub's id) is known by its name alone.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return {"name": str(model)}
    found: dict[str, Any] = {"weights": hash_weights(folder), "settings": hash_settings(folder)}
    base = (read_json_object(folder / ADAPTER_CONFIG) or {}).get("base_model_name_or_path")
    return found | ({"base": identify_checkpoint(str(base))} if base else {})


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
