"""Turns errors of a trainer that a user can fix into messages with a next step."""

from __future__ import annotations

import errno
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from sentifactory.errors import ConfigError, SentiFactoryError
from sentifactory.system.file_lock import explain_missing_locks, lacks_locks
from sentifactory.system.hardware import is_device_full
from sentifactory.system.network_settings import find_network_fault
from sentifactory.training.recipe.recipe import NEXT_STEP, Recipe

_DISK_FULL_WORDS = ("No space left", "Disk quota exceeded", "PytorchStreamWriter failed", "os error 28")
# Exceptions of a trainer and its libraries, before the first step, for a recipe that they cannot use.
_RECIPE_ERRORS = (ValueError, OSError, ImportError, NotImplementedError, KeyError, TypeError, AttributeError)
# Libraries with exception classes of their own; the package tokenizers raises a bare Exception.
_RECIPE_ERROR_LIBRARIES = ("datasets", "jinja2", "pyarrow", "safetensors")


@dataclass(frozen=True, slots=True)
class Trainer:
    """A trainer whose errors are explained.

    Attributes:
        title: its name in messages.
        package: of its source files.
        memory_keys: settings to lower when GPU memory runs out.
    """

    title: str
    package: str
    memory_keys: str


LLAMAFACTORY = Trainer("LLaMA-Factory", "llamafactory", "cutoff_len or freeze_trainable_layers")
TRANSFORMERS = Trainer("transformers' Trainer", "transformers", "cutoff_len or trainable_layers")


def _is_in_package(filename: str, package: str) -> bool:
    """Return whether a source file belongs to an imported package; other folders may have the same name."""
    module = sys.modules.get(package)
    return module is not None and Path(filename).is_relative_to(Path(str(module.__file__)).parent)


def _is_recipe_error(error: Exception) -> bool:
    """Return whether a trainer and its libraries raise such an error for a recipe that they cannot use."""
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, _RECIPE_ERRORS) or type(error) is Exception or library in _RECIPE_ERROR_LIBRARIES


def describe_error(error: BaseException) -> str:
    """Return the messages of an error and its cause on one line."""
    messages = [" ".join(str(item).split()).rstrip(".") for item in (error, error.__cause__) if item is not None]
    return ": ".join(dict.fromkeys(message for message in messages if message)) or type(error).__name__


def explain_parser_error(error: Exception, recipe: Recipe) -> ConfigError:
    """Return the error for settings that LLaMA-Factory's parser rejects."""
    message = describe_error(error)
    next_step = NEXT_STEP
    if "bf16" in message:
        next_step = "on a CPU or an older GPU set bf16=false (fp16=true on a GPU such as the T4)"
    elif "llamafactory-cli" in message:
        next_step = "use one device (CUDA_VISIBLE_DEVICES=0), or start it with sentifactory train"
    return ConfigError(
        f"LLaMA-Factory rejects the recipe: {message}",
        where=str(recipe.path),
        next_step=next_step,
        code="recipe-invalid",
    )


def explain_failure(
    error: Exception, recipe: Recipe, *, has_begun: bool, trainer: Trainer = LLAMAFACTORY
) -> SentiFactoryError | None:
    """Return the error for a failure that the user can fix; None for a defect, which keeps its traceback."""
    if isinstance(error, SentiFactoryError):
        return None
    message = describe_error(error)
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if is_full or any(word in message for word in _DISK_FULL_WORDS):
        return ConfigError(
            "The disk is full",
            where=str(recipe.settings["output_dir"]),
            next_step="free some space and run the same command, which continues from the last complete checkpoint",
            code="disk-full",
        )
    if isinstance(error, OSError) and lacks_locks(error):  # datasets locks its cache
        return explain_missing_locks(error)
    if is_device_full(error):
        return ConfigError(
            "The GPU has too little memory for this recipe",
            where=str(recipe.path),
            next_step="lower per_device_train_batch_size (and raise gradient_accumulation_steps in proportion), "
            f"{trainer.memory_keys}",
            code="memory",
        )
    is_on_hub = not Path(str(recipe.settings.get("model_name_or_path", ""))).expanduser().is_dir()
    if is_on_hub and not has_begun and (fault := find_network_fault()):
        return fault
    frames = traceback.extract_tb(error.__traceback__)
    is_theirs = any(_is_in_package(frame.filename, trainer.package) for frame in frames)
    is_ours = bool(frames) and _is_in_package(frames[-1].filename, "sentifactory")
    is_trainers_own = (
        isinstance(error, RuntimeError) and bool(frames) and _is_in_package(frames[-1].filename, trainer.package)
    )
    if has_begun or is_ours or not is_theirs or not (_is_recipe_error(error) or is_trainers_own):
        return None
    next_step = "fix the recipe; --verbose shows the trainer's log"
    if "couldn't connect" in message or "offline" in message.lower():
        next_step = "download the model into a folder and name that folder, or set HF_ENDPOINT to a mirror"
    return ConfigError(
        f"{trainer.title} could not start the run: {message}",
        where=str(recipe.path),
        next_step=next_step,
        code="training-start",
    )
