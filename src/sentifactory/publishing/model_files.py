"""Decides which files of a checkpoint folder are uploaded, skipped or forbidden.

Only files on the list below are uploaded; all others are skipped. A pickle, an optimizer state, code, a link out of
the folder or a file named like a secret suggests the wrong folder, and stops the upload. Files that training leaves
behind are known and skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from sentifactory.bilingual import Sentence
from sentifactory.engines.local.onnx_engine import EXPORT_NAME as ONNX_EXPORT_NAME
from sentifactory.metrics.calibration import CALIBRATION_NAME
from sentifactory.models.notices import NOTICES
from sentifactory.models.weights import PICKLE_ENDINGS, TRAINER_STATE
from sentifactory.training.run.checkpoints import LOCK_NAME

WEIGHTS = ("*.safetensors", "*.onnx", "*.onnx.data")
# What an export for llama.cpp and Ollama consists of; it is not uploaded.
WITH_GGUF = ("*.gguf", "modelfile", "answer.gbnf", "answer.schema.json")
# Settings of the tokenizer and the model, templates and legal texts.
SETTINGS = (
    "*.safetensors.index.json", "config.json", "generation_config.json", "preprocessor_config.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    *NOTICES,
)  # fmt: skip
# Written for publishing: with local paths removed, or generated from the evidence.
WRITTEN_ANEW = ("README.md", "run.json", CALIBRATION_NAME, ONNX_EXPORT_NAME, "sentifactory_*.json")
# Files that LLaMA-Factory and our own training leave in a run's folder.
_LEFT_BY_TRAINING = (TRAINER_STATE, LOCK_NAME, ".gitattributes")
_SECRET_FILES = (
    ".env*", "*.pem", "*.key", "*.p12", "*.pfx", "id_rsa*", "id_ed25519*", ".netrc", "*credential*", "*secret*",
    ".git", "token", "*.token",
)  # fmt: skip
_PICKLES = (*(f"*{ending}" for ending in PICKLE_ENDINGS), "*.msgpack")
_OPTIMIZER_STATES = ("optimizer*", "scheduler.*", "rng_state*", "scaler.pt", "global_step*")
_CODE = ("*.py", "*.sh", "*.so", "*.exe", "*.dll", "*.ipynb")
_KINDS = (
    (Sentence("may hold a secret", "可能含有密钥"), _SECRET_FILES),
    (Sentence("is a training state", "是训练状态"), _OPTIMIZER_STATES),
    (Sentence("is a pickle, which runs code when it is loaded", "是 pickle 文件，加载时会执行代码"), _PICKLES),
    (Sentence("is code", "是代码"), _CODE),
)


@dataclass(frozen=True, slots=True)
class SortedFiles:
    """The files of a folder.

    Attributes:
        upload: uploaded unchanged.
        stay: not uploaded.
        refused: why a file stops the upload, one clause per file.
    """

    upload: tuple[Path, ...]
    stay: tuple[Path, ...]
    refused: tuple[Sentence, ...]


def sort_files(folder: Path) -> SortedFiles:
    """Sort the files of a folder; its subfolders (checkpoints, logs) are not uploaded."""
    upload: list[Path] = []
    stay: list[Path] = []
    refused: list[Sentence] = []
    for path in sorted(folder.iterdir()):
        name = path.name
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            refused.append(
                Sentence.write(f"{name} is a link to a path outside the folder", f"{name} 是指向文件夹外的链接")
            )
        elif name in _LEFT_BY_TRAINING or _fits(name, WRITTEN_ANEW):
            stay.append(path)
        elif kind := _find_kind(name):
            refused.append(Sentence.write(f"{name} {kind.en}", f"{name} {kind.zh}"))
        elif path.is_file() and _fits(name, (*WEIGHTS, *SETTINGS)):
            upload.append(path)
        else:
            stay.append(path)
    return SortedFiles(tuple(upload), tuple(stay), tuple(refused))


def has_names(path: Path) -> bool:
    """Return whether an uploaded file may hold named settings: text files and safetensors headers do."""
    return not _fits(path.name, ("*.onnx", "*.onnx.data", "*.model", "*.png"))


def is_of_model(path: Path) -> bool:
    """Return whether a file has a name that we write into model folders."""
    ours = ("run.json", CALIBRATION_NAME, ONNX_EXPORT_NAME, "sentifactory_*.json", *WITH_GGUF)
    return _fits(path.name, (*WEIGHTS, *SETTINGS, *ours))


def is_replaced(name: str) -> bool:
    """Return whether an upload replaces a file of the former version by this name, or removes it."""
    return _fits(name, (*WEIGHTS, "*.bin", *SETTINGS, *WRITTEN_ANEW))


def _find_kind(name: str) -> Sentence | None:
    return next((kind for kind, patterns in _KINDS if _fits(name, patterns)), None)


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name.lower(), pattern.lower()) for pattern in patterns)
