"""SIGTERM to a whole process group, as from `timeout` or a service: the training saves a checkpoint and ends once."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sentifactory.models.complete_folder import list_checkpoints
from sentifactory.training.run.checkpoints import read_marker
from sentifactory.training.run.run_card import read_card
from tools.reliability.tiny_recipe import build_tiny_run

# A command such as `demo`, which runs another in a child process.
PARENT = """
import sys
from sentifactory.cli import run_guarded
from sentifactory.system.process import run_child_process
run_guarded(lambda: sys.exit(run_child_process([sys.executable, "-m", "sentifactory.cli", *sys.argv[1:]])))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "save_strategy", "next_step"), [(1, "steps", "continues"), (2, "'no'", "starts again")]
)
def test_a_signal_to_the_group_is_one_request(
    tmp_path: Path, processes: int, save_strategy: str, next_step: str
) -> None:
    recipe, output = build_tiny_run(tmp_path, save_steps=100_000, seed=3), tmp_path / "out"
    quiet = ("eval_strategy='no'", "eval_dataset=null", "load_best_model_at_end=false", "num_train_epochs=2000")
    words = [
        "train", str(recipe), f"output_dir={output}", f"save_strategy={save_strategy}", *quiet,
        *(("--processes", "2") if processes > 1 else ()),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MAX_RESTARTS": "1"}
    log = tmp_path / "stderr.txt"
    with log.open("w", encoding="utf-8") as stream:
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, *words], cwd=tmp_path, env=environment, stdout=stream, stderr=stream,
            start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while (read_card(output) or {}).get("steps", 0) < 1:
            is_waiting = parent.poll() is None and time.monotonic() < deadline
            assert is_waiting, log.read_text(encoding="utf-8")
            time.sleep(0.05)
        os.killpg(parent.pid, signal.SIGTERM)
        assert parent.wait(60) == 128 + signal.SIGTERM, log.read_text(encoding="utf-8")
    finally:
        parent.kill()  # the kernel ends its children
    said = log.read_text(encoding="utf-8")
    assert "Traceback" not in said
    assert said.count("Stopped after step ") == 1
    assert f"The same command {next_step}: sentifactory {shlex.join(words)}" in said
    card = read_card(output)
    assert card is not None
    assert (card["status"], card["continued_from"]) == ("interrupted", None), "torch has not started it again"
    marked = [bool(read_marker(folder)) for folder in list_checkpoints(output)]
    assert marked == ([True] if next_step == "continues" else [])
