"""Trains a recipe, and records the loss, the time and the peak memory of its steps."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentifactory.training.run.progress_callback import BaseCallback
from tools.benches.train_steps import read_peak_memory, reset_peak_memory


class StepRecorder(BaseCallback):
    """Records every step; memory counts from the first one, without what loading took."""

    def __init__(self, *, keeps_gradients: bool = False) -> None:
        self.seconds: list[float] = []
        self.gradients: list[dict[str, Any]] = []
        self.peak_bytes = 0
        self.loss_scale: float | None = None
        self._keeps_gradients = keeps_gradients
        self._losses: list[Any] = []
        self._start_s = 0.0

    @property
    def losses(self) -> list[float]:
        """The loss of each forward pass of the training, not rounded."""
        return [float(loss) for loss in self._losses]

    def on_init_end(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        """Watch the losses of the model."""
        model.register_forward_hook(self._keep_loss)

    def _keep_loss(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        if module.training and output.get("loss") is not None:
            self._losses.append(output["loss"].detach())

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the timer."""
        if not self.seconds:
            reset_peak_memory()
        _wait_for_device()
        self._start_s = time.perf_counter()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        """Keep the gradients."""
        if self._keeps_gradients:
            found = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
            self.gradients.append({name: value.detach().float().cpu() for name, value in found.items()})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the timer."""
        _wait_for_device()
        self.seconds.append(time.perf_counter() - self._start_s)
        self.peak_bytes = read_peak_memory()


def train_recorded(
    recipe: Path, words: Sequence[str], *, is_accelerated: bool, keeps_gradients: bool = False
) -> tuple[StepRecorder, dict[str, Any]]:
    """Train a recipe in this process, and return the records and the run card.

    Raises:
        ConfigError: when the recipe cannot be trained.
    """
    from sentifactory.training.llamafactory.train_recipe import train_recipe

    recorder = StepRecorder(keeps_gradients=keeps_gradients)
    # The weights are random and thrown away, so leaks do not matter.
    card = train_recipe(recipe, words, is_accelerated=is_accelerated, callbacks=[recorder], allow_leaks=True)
    gc.collect()
    return recorder, card


def _wait_for_device() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
