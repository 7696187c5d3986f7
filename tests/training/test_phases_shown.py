"""What a training shows on a terminal and in a log: the phases before the first step, then its steps."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sentifactory.training.run.run_phases import CHECKING, LOADING, PREPARING, SAVING

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def list_words(recipe: Path, small_gemma: Path, review_data: Path, output: Path) -> list[str]:
    settings = (
        f"model_name_or_path={small_gemma}", f"dataset_dir={review_data}", f"output_dir={output}", "bf16=false",
        "plot_loss=false", "logging_steps=1", "max_samples=16", "freeze_trainable_layers=1",
        "train_sampling_strategy=random",
    )  # fmt: skip
    return [sys.executable, "-m", "sentifactory.cli", "train", str(recipe), *settings]


def run_on_terminal(words: list[str], folder: Path) -> str:
    """Run a command on a terminal and return what it shows there, one line for each state of a line."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": "160", "TERM": "xterm"}
    process = subprocess.Popen(
        words, cwd=folder, stdin=follower, stdout=follower, stderr=follower, env=environment, close_fds=True
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # Linux, when the last process has closed the terminal
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert process.wait() == 0, shown.decode(errors="replace")
    return _CONTROL.sub("", shown.decode(errors="replace")).replace("\r", "\n")


def find_places(shown: str, *words: str) -> list[int]:
    return [shown.lower().index(word.lower()) for word in words]


@pytest.mark.slow
@pytest.mark.parametrize("is_on_terminal", [True, False])
def test_phases_come_before_the_first_step(
    repo_root: Path, small_gemma: Path, review_data: Path, tmp_path: Path, is_on_terminal: bool
) -> None:
    recipe = repo_root / "examples" / "train_freeze" / "gemma3_270m_freeze_demo.yaml"
    words = list_words(recipe, small_gemma, review_data, tmp_path / "out")
    if is_on_terminal:
        shown = run_on_terminal(words, tmp_path)
    else:
        ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
        shown = ended.stderr
        assert "\x1b" not in shown, "plain lines"
    first_step = "0/1 " if is_on_terminal else "Training: 0/"
    places = find_places(shown, CHECKING.en, LOADING.en, PREPARING.en, first_step, SAVING.en)
    assert places == sorted(places)
    assert "'loss':" not in shown, "the trainer's own lines are in its log"
