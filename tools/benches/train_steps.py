"""Times training steps of stock LLaMA-Factory and of ours alternately, in one run on the same batches.

The run is a real one, with LLaMA-Factory's data, trainer and optimizer. It repeats the same few batches: with the
accelerations off (`stock`), with them on and an empty cache (`building`, like a first epoch), and with a filled cache
(`cached`, like every later epoch). All steps train on the same reviews, and so on the same number of tokens. Peak
memory is that of the process, reset before each step (Linux). Torch counts floating-point operations in the first
round, which is not timed. On a busy machine, use the CPU seconds.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.system.hardware import read_peak_rss
from sentifactory.training.acceleration.answer_logits import find_causal_model
from sentifactory.training.acceleration.cache_storage import FileStorage
from sentifactory.training.acceleration.frozen_layer_cache import FOLDER_VARIABLE, read_limit
from sentifactory.training.llamafactory.training_callback import TrainingCallback
from sentifactory.training.recipe.recipe import load_recipe
from sentifactory.training.run.progress_callback import BaseCallback

MODES = ("stock", "building", "cached")


@dataclass(slots=True)
class Timing:
    """The measurements of one mode, with one entry per step."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    operations: int = 0  # floating-point operations of the steps of one round


class BenchDoneError(Exception):
    """Ends the run after the last step, before a checkpoint is written."""


class ModeSwitcher(BaseCallback):
    """Switches the accelerations on and off, and measures each step.

    Args:
        folder: of the caches, one for each round.
        batches: consecutive steps of one mode.
    """

    def __init__(self, folder: Path, batches: int) -> None:
        self.timings = {mode: Timing() for mode in MODES}
        self.training_callback: TrainingCallback | None = None
        self.projected_rows = dict.fromkeys(MODES, 0)  # inputs of the vocabulary projection
        self._folder = folder
        self._batches = batches
        self._current = MODES[0]
        self._counter: Any = None
        self._start_s = self._cpu_start_s = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check that there is something to compare.

        Raises:
            ConfigError: when the accelerations are not on.
        """
        if self.training_callback is None or self.training_callback.accelerations.answer_logits is None:
            raise ConfigError("The accelerations are off for this recipe, so there is nothing to compare")
        head = find_causal_model(kwargs["model"]).get_output_embeddings()
        head.register_forward_hook(self._count_rows)

    def _count_rows(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        self.projected_rows[self._current] += output.shape[:-1].numel()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Choose the mode of the step, and start the timer."""
        assert self.training_callback is not None  # noqa: S101  (set before training begins)
        turn, step = divmod(state.global_step, self._batches)
        self._current = MODES[turn % len(MODES)]
        accelerations = self.training_callback.accelerations
        accelerations.is_enabled = self._current != "stock"
        if self._current == "building" and step == 0:
            self._empty_cache(accelerations, turn)
        if self._is_first_round(state.global_step):
            self._counter = count_operations()
            self._counter.__enter__()
        reset_peak_memory()
        self._start_s, self._cpu_start_s = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the timer."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds, cpu_seconds = time.perf_counter() - self._start_s, time.process_time() - self._cpu_start_s
        timing = self.timings[self._current]
        if self._is_first_round(state.global_step - 1):
            self._counter.__exit__(None, None, None)
            timing.operations += self._counter.get_total_flops()
            return
        timing.seconds.append(seconds)
        timing.cpu_seconds.append(cpu_seconds)
        timing.peak_bytes.append(read_peak_memory())

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the run before the weights are saved."""
        raise BenchDoneError

    def _is_first_round(self, step: int) -> bool:
        return step < self._batches * len(MODES)

    def _empty_cache(self, accelerations: Any, turn: int) -> None:
        cache = accelerations.fast_decoder and accelerations.fast_decoder.cache
        if cache is not None:
            cache.close()
            cache.storage = FileStorage(self._folder / f"{turn}.trunk", read_limit())


def count_operations() -> Any:
    """Return torch's counter of floating-point operations, extended by attention on the CPU."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode, flop_registry

    def wrap(known: Any) -> Any:
        def count(*args: Any, **kwargs: Any) -> int:
            return int(known(*args, **kwargs))

        # The formula reads the shapes of the tensors itself.
        count._get_raw = True  # type: ignore[attr-defined]
        return count

    aten = torch.ops.aten
    attention = {
        aten._scaled_dot_product_flash_attention_for_cpu: aten._scaled_dot_product_flash_attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: aten._scaled_dot_product_flash_attention_backward,
    }
    mapping = {own: wrap(flop_registry[known]) for own, known in attention.items()}
    return FlopCounterMode(display=False, custom_mapping=mapping)


def reset_peak_memory() -> None:
    """Reset the peak to the current memory."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def read_peak_memory() -> int:
    """Return the peak bytes since `reset_peak_memory`, of CUDA or else of this process; 0 where it is unknown."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return read_peak_rss()


@contextmanager
def keep_caches_in(folder: Path) -> Iterator[None]:
    """Put the cache of the frozen layers into a folder, so that it starts empty."""
    previous = os.environ.get(FOLDER_VARIABLE)
    os.environ[FOLDER_VARIABLE] = str(folder)
    try:
        yield
    finally:
        if previous is None:
            del os.environ[FOLDER_VARIABLE]
        else:
            os.environ[FOLDER_VARIABLE] = previous


def measure_steps(recipe: str | Path, overrides: Sequence[str], *, batches: int, rounds: int) -> ModeSwitcher:
    """Run `rounds` timed rounds, each with `batches` steps of every mode.

    Raises:
        ConfigError: when the recipe cannot be used, or has no accelerations.
    """
    from sentifactory.training.llamafactory.train_recipe import train_recipe

    reviews = batches * count_reviews(recipe, overrides)
    with tempfile.TemporaryDirectory(prefix="sentifactory-bench-") as name:
        folder = Path(name)
        switcher = ModeSwitcher(folder, batches)
        own = [
            f"output_dir={folder / 'run'}", f"max_samples={reviews}", "disable_shuffling=true",
            f"max_steps={len(MODES) * batches * (rounds + 1)}", "logging_steps=1",
            'save_strategy="no"', 'eval_strategy="no"', "eval_dataset=null", "val_size=0",
        ]  # fmt: skip
        try:
            with keep_caches_in(folder):
                # The trained weights are discarded, so leaks do not matter.
                train_recipe(recipe, [*overrides, *own], callbacks=[switcher], allow_leaks=True)
        except BenchDoneError:
            return switcher
    raise ConfigError("The run ended before its last step", where=str(recipe))


def count_reviews(recipe: str | Path, overrides: Sequence[str]) -> int:
    """Return the number of reviews per step of a recipe."""
    settings = load_recipe(recipe, overrides).settings
    return settings.get("per_device_train_batch_size", 8) * settings.get("gradient_accumulation_steps", 1)
