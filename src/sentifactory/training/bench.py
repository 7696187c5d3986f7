"""Times training steps of stock LLaMA-Factory against ours, in turns, in one run on the same batches.

The run is a real one (LLaMA-Factory's data, trainer and optimizer). It goes through the same few batches again and
again: once with the accelerations off (`stock`), once with them on and an empty cache (`building`: an epoch that no
epoch came before), once with what the cache then holds (`cached`: every later epoch). All steps train on the same
reviews, so they compute on equally many tokens. Peak memory is that of the process, measured anew for each step
(Linux). Floating-point operations are counted by torch in the first round, which is not timed. It decides nothing. On
a machine that is busy with other work, read the CPU seconds.
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
from sentifactory.proc_tables import read_peak_rss
from sentifactory.training.answer_loss import find_causal_model
from sentifactory.training.recipe import load_recipe
from sentifactory.training.trunk_cache import FOLDER_VARIABLE, read_limit
from sentifactory.training.trunk_storage import FileStorage
from sentifactory.training.watching import TrainerListener, TrainingWatcher

MODES = ("stock", "building", "cached")


@dataclass(slots=True)
class Timing:
    """What was measured in one mode; one entry a step."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    operations: int = 0  # floating-point operations of the steps of one round


class BenchDoneError(Exception):
    """Ends the run after the last step, before a checkpoint is written."""


class Alternator(TrainerListener):
    """Switches the accelerations off and on, and measures each step.

    Args:
        folder: where the caches of the rounds are written.
        batches: steps of one mode before the next mode's turn.
    """

    def __init__(self, folder: Path, batches: int) -> None:
        self.timings = {mode: Timing() for mode in MODES}
        self.watcher: TrainingWatcher | None = None
        self.projected_rows = dict.fromkeys(MODES, 0)  # hidden states that went through the vocabulary projection
        self._folder = folder
        self._batches = batches
        self._current = MODES[0]
        self._counter: Any = None
        self._start_s = self._cpu_start_s = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Find out whether there is anything to compare.

        Raises:
            ConfigError: when the accelerations are not on.
        """
        if self.watcher is None or self.watcher.accelerations.answer_loss is None:
            raise ConfigError("The accelerations are off for this recipe, so there is nothing to compare")
        head = find_causal_model(kwargs["model"]).get_output_embeddings()
        head.register_forward_hook(self._count_rows)

    def _count_rows(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        self.projected_rows[self._current] += output.shape[:-1].numel()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Choose the mode of the step and start the clock."""
        assert self.watcher is not None  # noqa: S101  (set before training begins)
        turn, step = divmod(state.global_step, self._batches)
        self._current = MODES[turn % len(MODES)]
        accelerations = self.watcher.accelerations
        accelerations.is_enabled = self._current != "stock"
        if self._current == "building" and step == 0:
            self._empty_cache(accelerations, turn)
        if self._is_first_round(state.global_step):
            self._counter = count_operations()
            self._counter.__enter__()
        reset_peak_memory()
        self._start_s, self._cpu_start_s = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the clock."""
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
        """Leave before the weights are saved."""
        raise BenchDoneError

    def _is_first_round(self, step: int) -> bool:
        return step < self._batches * len(MODES)

    def _empty_cache(self, accelerations: Any, turn: int) -> None:
        cache = accelerations.fast_decoder and accelerations.fast_decoder.cache
        if cache is not None:
            cache.close()
            cache.storage = FileStorage(self._folder / f"{turn}.trunk", read_limit())


def count_operations() -> Any:
    """Return torch's counter of floating-point operations, with attention on the CPU, which it does not know."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode, flop_registry

    def follow(known: Any) -> Any:
        def count(*args: Any, **kwargs: Any) -> int:
            return int(known(*args, **kwargs))

        # The known formula looks up the shapes itself.
        count._get_raw = True  # type: ignore[attr-defined]
        return count

    aten = torch.ops.aten
    attention = {
        aten._scaled_dot_product_flash_attention_for_cpu: aten._scaled_dot_product_flash_attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: aten._scaled_dot_product_flash_attention_backward,
    }
    mapping = {own: follow(flop_registry[known]) for own, known in attention.items()}
    return FlopCounterMode(display=False, custom_mapping=mapping)


def reset_peak_memory() -> None:
    """Let the peak start again from what is held now."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def read_peak_memory() -> int:
    """Return the peak since `reset_peak_memory` in bytes: CUDA's, else this process's; 0 where it is not known."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return read_peak_rss()


@contextmanager
def keep_caches_in(folder: Path) -> Iterator[None]:
    """Let the trunk cache of a run be in a folder, so that no earlier run has filled it."""
    former = os.environ.get(FOLDER_VARIABLE)
    os.environ[FOLDER_VARIABLE] = str(folder)
    try:
        yield
    finally:
        if former is None:
            del os.environ[FOLDER_VARIABLE]
        else:
            os.environ[FOLDER_VARIABLE] = former


def measure_steps(recipe: str | Path, overrides: Sequence[str], *, batches: int, rounds: int) -> Alternator:
    """Run `rounds` counted rounds: in each, `batches` steps of every mode.

    Raises:
        ConfigError: when the recipe cannot be used, or the accelerations are not on for it.
    """
    from sentifactory.training.llamafactory import train_recipe

    reviews = batches * count_reviews(recipe, overrides)
    with tempfile.TemporaryDirectory(prefix="sentifactory-bench-") as name:
        folder = Path(name)
        alternator = Alternator(folder, batches)
        own = [
            f"output_dir={folder / 'run'}", f"max_samples={reviews}", "disable_shuffling=true",
            f"max_steps={len(MODES) * batches * (rounds + 1)}", "logging_steps=1",
            'save_strategy="no"', 'eval_strategy="no"', "eval_dataset=null", "val_size=0",
        ]  # fmt: skip
        try:
            with keep_caches_in(folder):
                # What the steps learn is thrown away: nothing will be tested.
                train_recipe(recipe, [*overrides, *own], listeners=[alternator], allow_leaks=True)
        except BenchDoneError:
            return alternator
    raise ConfigError("The run ended before its last step", where=str(recipe))


def count_reviews(recipe: str | Path, overrides: Sequence[str]) -> int:
    """Return how many reviews a recipe trains on in one step."""
    settings = load_recipe(recipe, overrides).settings
    return settings.get("per_device_train_batch_size", 8) * settings.get("gradient_accumulation_steps", 1)
