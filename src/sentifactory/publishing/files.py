"""Which files of a folder go up, which stay behind, and which stop everything.

Only what is on the list below goes up; whatever else lies in the folder stays. A pickle, an optimizer state, code, a
link that leaves the folder, or anything that looks like a secret is a sign that the folder is not what its owner
thinks it is: nothing goes up then. The files that training itself leaves there are known, and simply stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from sentifactory.engines.calibration import CALIBRATION_NAME
from sentifactory.engines.onnx import EXPORT_NAME as ONNX_EXPORT_NAME
from sentifactory.models.weights import TRAINER_STATE
from sentifactory.training.checkpoints import LOCK_NAME

WEIGHTS = ("*.safetensors", "*.onnx", "*.onnx.data")
# What a tokenizer, a model and their templates consist of.
SETTINGS = (
    "*.safetensors.index.json", "config.json", "generation_config.json", "preprocessor_config.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "LICENSE*", "NOTICE*",
)  # fmt: skip
# Written anew for publishing: machine paths taken out, or made from the evidence.
WRITTEN_ANEW = ("README.md", "run.json", CALIBRATION_NAME, ONNX_EXPORT_NAME, "sentifactory_*.json")
# What LLaMA-Factory and our own training leave at the top of a run's folder.
_LEFT_BY_TRAINING = (TRAINER_STATE, LOCK_NAME, ".gitattributes")
_SECRET_FILES = (
    ".env*", "*.pem", "*.key", "*.p12", "*.pfx", "id_rsa*", "id_ed25519*", ".netrc", "*credential*", "*secret*",
    ".git", "token", "*.token",
)  # fmt: skip
_PICKLES = ("*.pkl", "*.pickle", "*.joblib", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.msgpack", "*.h5", "*.npy")
_OPTIMIZER_STATES = ("optimizer*", "scheduler.*", "rng_state*", "scaler.pt", "global_step*")
_CODE = ("*.py", "*.sh", "*.so", "*.exe", "*.dll", "*.ipynb")
_KINDS = (
    ("may hold a secret", _SECRET_FILES),
    ("is a training state", _OPTIMIZER_STATES),
    ("is a pickle, which runs code when it is loaded", _PICKLES),
    ("is code", _CODE),
)


@dataclass(frozen=True, slots=True)
class Sorted:
    """The files of a folder.

    Attributes:
        upload: go up as they are.
        stay: stay behind.
        refused: why a file stops everything, as clauses.
    """

    upload: tuple[Path, ...]
    stay: tuple[Path, ...]
    refused: tuple[str, ...]


def sort_files(folder: Path) -> Sorted:
    """Sort what lies at the top of a folder; folders below it (checkpoints, logs) stay behind as a whole."""
    upload, stay, refused = [], [], []
    for path in sorted(folder.iterdir()):
        name = path.name
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            refused.append(f"{name} is a link to something outside the folder")
        elif name in _LEFT_BY_TRAINING or _fits(name, WRITTEN_ANEW):
            stay.append(path)
        elif kind := _find_kind(name):
            refused.append(f"{name} {kind}")
        elif path.is_file() and _fits(name, (*WEIGHTS, *SETTINGS)):
            upload.append(path)
        else:
            stay.append(path)
    return Sorted(tuple(upload), tuple(stay), tuple(refused))


def is_text(path: Path) -> bool:
    """Return whether a file that goes up is a text."""
    return not _fits(path.name, (*WEIGHTS, "*.model", "*.png"))


def _find_kind(name: str) -> str:
    return next((kind for kind, patterns in _KINDS if _fits(name, patterns)), "")


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name.lower(), pattern.lower()) for pattern in patterns)
