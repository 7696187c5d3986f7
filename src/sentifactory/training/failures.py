"""Turns a trainer's refusals and failures that a user can mend into one sentence with a next step."""

from __future__ import annotations

import errno
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from sentifactory.errors import ConfigError, SentiFactoryError
from sentifactory.file_lock import explain_missing_locks, lacks_locks
from sentifactory.network_settings import find_network_fault
from sentifactory.training.recipe import NEXT_STEP, Recipe

_DISK_FULL_WORDS = ("No space left", "Disk quota exceeded", "PytorchStreamWriter failed", "os error 28")
# What a trainer and the libraries under it raise before the first step for a recipe they cannot use.
_REFUSALS = (ValueError, OSError, ImportError, NotImplementedError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True)
class Trainer:
    """Whose failures are explained.

    Attributes:
        title: its name for the user.
        package: that its source files belong to.
        memory_keys: what to lower when the GPU's memory does not suffice.
    """

    title: str
    package: str
    memory_keys: str


LLAMAFACTORY = Trainer("LLaMA-Factory", "llamafactory", "cutoff_len or freeze_trainable_layers")
TRANSFORMERS = Trainer("transformers' Trainer", "transformers", "cutoff_len or trainable_layers")


def _stands_in(filename: str, package: str) -> bool:
    """Return whether a source file belongs to an imported package; a checkout's folder may bear the same name."""
    module = sys.modules.get(package)
    return module is not None and Path(filename).is_relative_to(Path(str(module.__file__)).parent)


def describe_error(error: BaseException) -> str:
    """Return the message of an error with that of its cause, on one line."""
    messages = [" ".join(str(item).split()).rstrip(".") for item in (error, error.__cause__) if item is not None]
    return ": ".join(dict.fromkeys(message for message in messages if message)) or type(error).__name__


def explain_refusal(error: Exception, recipe: Recipe) -> ConfigError:
    """Return the sentence for settings that LLaMA-Factory's parser does not accept together."""
    message = describe_error(error)
    next_step = NEXT_STEP
    if "bf16" in message:
        next_step = "on a CPU or an older GPU set bf16=false (fp16=true on a GPU such as the T4)"
    elif "llamafactory-cli" in message:
        next_step = "use one device (CUDA_VISIBLE_DEVICES=0), or start it with llamafactory-cli train"
    return ConfigError(f"LLaMA-Factory refuses it: {message}", where=str(recipe.path), next_step=next_step)


def explain_failure(
    error: Exception, recipe: Recipe, *, has_begun: bool, trainer: Trainer = LLAMAFACTORY
) -> SentiFactoryError | None:
    """Return the sentence for a failed run that the user can mend; None for a defect, which keeps its traceback."""
    if isinstance(error, SentiFactoryError):
        return None
    message = describe_error(error)
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if is_full or any(word in message for word in _DISK_FULL_WORDS):
        return ConfigError(
            "No room is left on the disk",
            where=str(recipe.settings["output_dir"]),
            next_step="free some space and run the same command: it continues from the last complete checkpoint",
        )
    if isinstance(error, OSError) and lacks_locks(error):  # datasets locks its cache
        return explain_missing_locks(error)
    if type(error).__name__ == "OutOfMemoryError":
        return ConfigError(
            "The GPU has too little memory for this recipe",
            where=str(recipe.path),
            next_step="lower per_device_train_batch_size (and raise gradient_accumulation_steps alike), "
            f"{trainer.memory_keys}",
        )
    is_fetched = not Path(str(recipe.settings.get("model_name_or_path", ""))).expanduser().is_dir()
    if is_fetched and not has_begun and (fault := find_network_fault()):
        return fault
    frames = traceback.extract_tb(error.__traceback__)
    is_theirs = any(_stands_in(frame.filename, trainer.package) for frame in frames)
    is_ours = bool(frames) and _stands_in(frames[-1].filename, "sentifactory")
    if has_begun or is_ours or not is_theirs or not isinstance(error, _REFUSALS):
        return None
    next_step = "mend the recipe; --verbose shows the trainer's log"
    if "couldn't connect" in message or "offline" in message.lower():
        next_step = "download the model into a folder and name that folder, or set HF_ENDPOINT to a mirror"
    return ConfigError(
        f"{trainer.title} could not start the run: {message}", where=str(recipe.path), next_step=next_step
    )
