"""Times a training step of stock LLaMA-Factory against ours, in turns, in one run on the same batch.

The run is a real one (LLaMA-Factory's data, trainer and optimizer); every second step has the accelerations off. All
steps train on the same reviews, so they compute on equally many tokens. Peak memory is that of the process, measured
anew for each step (Linux). It decides nothing. On a machine that is busy with other work, read the CPU seconds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.training.answer_loss import find_causal_model
from sentifactory.training.recipe import load_recipe
from sentifactory.training.watching import TrainerListener, TrainingWatcher

MODES = ("stock", "ours")


@dataclass(slots=True)
class Timing:
    """What was measured in one mode; one entry a step."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)


class BenchDoneError(Exception):
    """Ends the run after the last step, before a checkpoint is written."""


class Alternator(TrainerListener):
    """Switches the accelerations off and on from step to step, and measures each.

    Args:
        warm_up: steps of each mode that do not count (the first ones load libraries and allocate).
    """

    def __init__(self, warm_up: int = 1) -> None:
        self.timings = {mode: Timing() for mode in MODES}
        self.watcher: TrainingWatcher | None = None
        self.projected_rows = dict.fromkeys(MODES, 0)  # hidden states that went through the vocabulary projection
        self._current = MODES[0]
        self._warm_up = warm_up
        self._start_s = self._cpu_start_s = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Find out whether there is anything to compare.

        Raises:
            ConfigError: when the accelerations are not on.
        """
        if self.watcher is None or self.watcher.answer_loss is None:
            raise ConfigError("The accelerations are off for this recipe, so there is nothing to compare")
        head = find_causal_model(kwargs["model"]).get_output_embeddings()
        head.register_forward_hook(self._count_rows)

    def _count_rows(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        self.projected_rows[self._current] += output.shape[:-1].numel()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Choose the mode of the step and start the clock."""
        assert self.watcher is not None  # noqa: S101  (set before training begins)
        assert self.watcher.answer_loss is not None  # noqa: S101  (checked in on_train_begin)
        self._current = self._mode(state.global_step)
        self.watcher.answer_loss.is_enabled = self._current == "ours"
        reset_peak_memory()
        self._start_s, self._cpu_start_s = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the clock."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds, cpu_seconds = time.perf_counter() - self._start_s, time.process_time() - self._cpu_start_s
        step = state.global_step - 1
        if step // len(MODES) >= self._warm_up:
            timing = self.timings[self._current]
            timing.seconds.append(seconds)
            timing.cpu_seconds.append(cpu_seconds)
            timing.peak_bytes.append(read_peak_memory())

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave before the weights are saved."""
        raise BenchDoneError

    @staticmethod
    def _mode(step: int) -> str:
        return MODES[step % len(MODES)]


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
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def measure_steps(recipe: str | Path, overrides: Sequence[str], pairs: int) -> Alternator:
    """Run `pairs` counted steps of each mode.

    Raises:
        ConfigError: when the recipe cannot be used, or the accelerations are not on for it.
    """
    from sentifactory.training.llamafactory import train_recipe

    settings = load_recipe(recipe, overrides).settings
    reviews = settings.get("per_device_train_batch_size", 8) * settings.get("gradient_accumulation_steps", 1)
    alternator = Alternator()
    with tempfile.TemporaryDirectory(prefix="sentifactory-bench-") as folder:
        own = [
            f"output_dir={folder}/run", f"max_samples={reviews}", f"max_steps={len(MODES) * (pairs + 1)}",
            'save_strategy="no"', 'eval_strategy="no"', "eval_dataset=null", "val_size=0",
        ]  # fmt: skip
        try:
            # What the steps learn is thrown away: nothing will be tested.
            train_recipe(recipe, [*overrides, *own], listeners=[alternator], allow_leaks=True)
        except BenchDoneError:
            return alternator
    raise ConfigError("The run ended before its last step", where=str(recipe))


def format_table(alternator: Alternator) -> str:
    """Return the measurements as a Markdown table."""
    clock, cpu = (
        {mode: statistics.median(getattr(alternator.timings[mode], name)) for mode in MODES}
        for name in ("seconds", "cpu_seconds")
    )
    rows = [
        "| step | seconds (median) | seconds (each) | times stock | CPU seconds | times stock | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for mode in MODES:
        timing = alternator.timings[mode]
        each = " ".join(f"{seconds:.2f}" for seconds in timing.seconds)
        rows.append(
            f"| {mode} | {clock[mode]:.2f} | {each} | {clock['stock'] / clock[mode]:.2f} | {cpu[mode]:.2f} "
            f"| {cpu['stock'] / cpu[mode]:.2f} | {max(timing.peak_bytes) / 1e9:.2f} GB |"
        )
    return "\n".join(rows)
