"""Checks that a folder holds a whole model: configuration, weights and tokenizer; says what is missing and what to do.

One check for every command that takes a model's folder, so that a model that cannot be loaded is refused before any
work. A training that was stopped leaves such folders: one without weights, with checkpoints that lack the tokenizer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.models.first_base import RUN_CARD
from sentifactory.models.weights import list_shards, list_weights, read_stated_length
from sentifactory.system.command_line import quote_word, write_command
from sentifactory.system.json_text import read_json_object

HOW_TO_MAKE = (
    "`sentifactory model fetch gemma-3-270m` creates the pretrained model, "
    "`sentifactory train examples/train_freeze/gemma3_270m_freeze_demo.yaml` a tuned one"
)
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_INDEX = "*.safetensors.index.json"
# Any one of them holds a tokenizer.
_TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model",
    "tekken.json", "*.tiktoken", "*.gguf",
)  # fmt: skip
_LFS_POINTER = b"version https://git-lfs"
_SHOWN_MODELS = 3


@dataclass(frozen=True, slots=True)
class Gap:
    """Why a folder is no whole model.

    Attributes:
        what: what is missing, as a sentence without the full stop.
        next_step: a command or a change.
        code: of the error.
    """

    what: str
    next_step: str
    code: str


def refuse_incomplete(folder: Path, where: str) -> None:
    """Raise a ConfigError for a folder that is no whole model.

    Args:
        folder: of the model.
        where: the model as the user named it.
    """
    if (gap := find_gap(folder)) is not None:
        expected = "a folder with config.json, weights and tokenizer"
        raise ConfigError(gap.what, where=where, expected=expected, next_step=gap.next_step, code=gap.code)


def refuse_unfinished(folder: Path, where: str) -> None:
    """Raise a ConfigError for the output of a training that has not written its model; likewise."""
    if not list_weights(folder) and (gap := find_unfinished_run(folder)) is not None:
        raise ConfigError(gap.what, where=where, next_step=gap.next_step, code=gap.code)


def find_gap(folder: Path) -> Gap | None:
    """Return why a folder is no whole model; None if it is one, as far as can be seen without loading it."""
    if not folder.is_dir():
        return Gap("This is not a folder", HOW_TO_MAKE, "model-incomplete")
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    missing += [] if list_weights(folder) else ["weights (*.safetensors)"]
    if missing == ["config.json"] and (files := sorted(folder.glob("*.gguf"))):
        return Gap(
            "This folder holds a GGUF file, which llama.cpp and Ollama run, and no checkpoint",
            f"start llama-server -m {quote_word(str(files[0]))} and pass --engine http://127.0.0.1:8080 "
            f"--model {quote_word(str(folder))}, or name the checkpoint that it was exported from",
            "model-incomplete",
        )
    if missing:
        what = f"This folder is no whole model: {' and '.join(missing)} missing"
        return find_unfinished_run(folder) or Gap(what, _suggest_other(folder), "model-incomplete")
    if read_json_object(folder / "config.json") is None:
        return Gap("config.json is not a JSON object", "get this file from its source again", "model-config")
    for file in list_weights(folder):
        if fault := _find_fault(file):
            return Gap(f"{file.name} {fault}", "get this file from its source again", "model-weights")
    for index in folder.glob(_INDEX):
        shards = list_shards(index) or []
        if absent := [name for name in shards if not (folder / name).is_file()]:
            what = f"{len(absent)} of {len(shards)} files of weights are missing, such as {absent[0]}"
            return Gap(what, "get the missing files from their source", "model-weights")
    if not any(path for pattern in _TOKENIZERS for path in folder.glob(pattern)):
        return _describe_missing_tokenizer(folder)
    return None


def find_unfinished_run(folder: Path) -> Gap | None:
    """Return that a folder is the output of a training that has not finished, and the command that continues it."""
    card = read_json_object(folder / RUN_CARD) or {}
    checkpoints = [checkpoint for checkpoint in list_checkpoints(folder) if list_weights(checkpoint)]
    if card.get("status") in ("running", "interrupted", "failed"):
        saved = f" after {checkpoints[-1].name}" if checkpoints else ""
        state = {"running": "is running or was killed", "interrupted": "was stopped", "failed": "failed"}
        return Gap(
            f"The training of this model {state[card['status']]}{saved}, and has not written its model",
            f"finish the training, which continues where it stopped: {write_training(card)}",
            "model-unfinished",
        )
    return None


def write_training(card: dict[str, Any]) -> str:
    """Return the command of a training from its run card, to copy.

    Example:
        >>> write_training({"recipe_file": "a.yaml", "overrides": ["seed=1"], "loss": "label"})
        'sentifactory train a.yaml seed=1 --loss label'
    """
    overrides = [str(one) for one in card.get("overrides") or ()]
    loss = card.get("loss", "answer")
    return write_command(
        "train", str(card.get("recipe_file")), *overrides, ("--loss", None if loss == "answer" else str(loss))
    )


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Return the checkpoint folders of a training, ordered by step."""
    if not output_dir.is_dir():
        return []
    found = [path for path in output_dir.iterdir() if path.is_dir() and CHECKPOINT.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def _suggest_other(folder: Path) -> str:
    """Return the models within a folder that is none itself, or how to make one."""
    inner = [path.parent for path in sorted(folder.glob("*/config.json")) if find_gap(path.parent) is None]
    if not inner:
        return HOW_TO_MAKE
    return f"name a model in it: {', '.join(map(str, inner[:_SHOWN_MODELS]))}" + ", ..." * (len(inner) > _SHOWN_MODELS)


def _find_fault(file: Path) -> str:
    """Return why weights are not whole; "" if they are, or the loader has to say."""
    with file.open("rb") as stream:
        if stream.read(len(_LFS_POINTER)) == _LFS_POINTER:
            return "is a pointer of Git LFS, and not the weights"
    stated, size = read_stated_length(file) if file.suffix == ".safetensors" else None, file.stat().st_size
    return f"is cut off: {size} of {stated} bytes" if stated is not None and size < stated else ""


def _describe_missing_tokenizer(folder: Path) -> Gap:
    what = "There is no tokenizer in this folder (such as tokenizer.json)"
    next_step = "copy the files of the tokenizer from the base model into the folder"
    if CHECKPOINT.fullmatch(folder.name):
        if unfinished := find_unfinished_run(folder.parent):
            what, next_step = f"{what}, which is a checkpoint of a training", unfinished.next_step
        elif find_gap(folder.parent) is None:
            what, next_step = f"{what}, which is a checkpoint", f"name the finished model, {folder.parent}"
    return Gap(what, next_step, "model-no-tokenizer")
