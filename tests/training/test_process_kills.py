"""One of two processes is killed: both end, one sentence says why, and the same command ends with the same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from forked_commands import run_forked, serve_python
from recorded_runs import read_weights

from sentifactory.training.processes.launch_ranks import GRACE_S
from sentifactory.training.run.checkpoints import MARKER_NAME
from sentifactory.training.run.run_card import read_card
from tools.reliability.tiny_recipe import build_tiny_run


def write_words(recipe: Path, output: Path) -> list[str]:
    return ["train", str(recipe), f"output_dir={output}", "num_train_epochs=20", "--processes", "2"]


@pytest.mark.slow
def test_a_killed_process_ends_the_run_and_the_same_command_continues_it(tmp_path: Path) -> None:
    import torch

    recipe = build_tiny_run(tmp_path, save_steps=10, seed=3)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    with serve_python() as python:
        forked = {**environment, "PYTHON_EXEC": str(python)}
        done = run_forked("sentifactory", *write_words(recipe, whole), folder=tmp_path, environment=forked)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Trained in") == 1

    # A signal does not reach a forked command, so this one starts its own interpreters.
    run = subprocess.Popen(
        [sys.executable, "-m", "sentifactory.cli", *write_words(recipe, cut)], cwd=tmp_path, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 600
    while not any(cut.glob(f"checkpoint-*/{MARKER_NAME}")) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    processes = psutil.Process(run.pid).children()
    assert len(processes) == 2
    os.kill(processes[1].pid, signal.SIGKILL)
    stdout, stderr = run.communicate(timeout=GRACE_S + 60)
    assert run.returncode == 128 + signal.SIGKILL
    assert stdout == ""
    assert stderr.count("Process 2 of 2 was ended by SIGKILL") == 1
    assert "Traceback" not in stderr
    assert not any(process.is_running() for process in processes)
    card = read_card(cut)
    assert card is not None
    assert card["status"] in ("interrupted", "running")  # the latter where the main process did not notice in time

    with serve_python() as python:
        forked = {**environment, "PYTHON_EXEC": str(python)}
        done = run_forked("sentifactory", *write_words(recipe, cut), folder=tmp_path, environment=forked)
    assert done.returncode == 0, done.stderr[-3000:]
    card = read_card(cut)
    assert card is not None
    assert card["continued_from"] is not None
    assert (card["status"], card["world_size"]) == ("finished", 2)
    expected, found = read_weights(whole), read_weights(cut)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
