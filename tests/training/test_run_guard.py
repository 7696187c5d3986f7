"""Runs that are told to stop, that had ended already, or whose loss is no number."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded_runs import GradientRecorder, read_weights

from sentifactory.errors import ConfigError
from sentifactory.training.checkpoints import list_checkpoints

pytestmark = pytest.mark.slow

DEMO = "train_freeze/gemma3_270m_freeze_demo.yaml"
Run = Callable[..., dict[str, Any]]

# The learning rate stays high to the end, so that a step more would be seen.
WORDS = (
    "max_steps=5", "save_steps=4", "per_device_train_batch_size=4", "freeze_trainable_layers=1", "warmup_steps=0",
    "lr_scheduler_type=constant", "learning_rate=0.01",
)  # fmt: skip


class Interrupter(GradientRecorder):
    """Sends SIGTERM in the middle of a step, or Ctrl-C when training is over and nothing is written yet."""

    def __init__(self, *, term_at: int = 0, stop_at_end: bool = False) -> None:
        super().__init__()
        self.term_at = term_at
        self.stop_at_end = stop_at_end

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_pre_optimizer_step(args, state, control, **kwargs)
        if state.global_step + 1 == self.term_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.stop_at_end:
            raise KeyboardInterrupt


def test_sigterm_saves_at_once_and_an_ended_run_trains_no_step_more(
    run_recipe: Run, small_gemma: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import torch

    run_recipe(DEMO, small_gemma, *WORDS, output="whole")
    former = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        run_recipe(DEMO, small_gemma, *WORDS, output="cut", listeners=[Interrupter(term_at=2)])
    output = tmp_path / "cut"
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is former
    assert json.loads((output / "run.json").read_text())["status"] == "interrupted"
    assert [folder.name for folder in list_checkpoints(output)] == ["checkpoint-2"]
    assert "the run ends after step 2" in capfd.readouterr().err

    with pytest.raises(KeyboardInterrupt):
        run_recipe(DEMO, small_gemma, *WORDS, output="cut", listeners=[Interrupter(stop_at_end=True)])
    assert [folder.name for folder in list_checkpoints(output)] == ["checkpoint-5"]
    assert not (output / "model.safetensors").exists()

    recorder = GradientRecorder()
    card = run_recipe(DEMO, small_gemma, *WORDS, output="cut", listeners=[recorder])
    assert recorder.steps == []
    assert (card["status"], card["steps"]) == ("finished", 5)
    whole, continued = read_weights(tmp_path / "whole"), read_weights(output)
    assert all(torch.equal(whole[name], continued[name]) for name in whole)


def test_a_loss_that_is_no_number_stops_the_run_with_advice(
    run_recipe: Run, small_gemma: Path, tmp_path: Path
) -> None:
    words = [*WORDS, "save_steps=1", "learning_rate=1e30", "max_grad_norm=0"]
    with pytest.raises(ConfigError, match=r"loss of step \d is not a number.*checkpoint-1 is from before") as caught:
        run_recipe(DEMO, small_gemma, *words)
    assert "learning_rate 1e+30" in str(caught.value)
    assert "a lower learning_rate" in caught.value.next_step
    card = json.loads((tmp_path / "out" / "run.json").read_text())
    assert card["status"] == "failed"
    for folder in list_checkpoints(tmp_path / "out"):
        assert all(bool(value.isfinite().all()) for value in read_weights(folder).values())
