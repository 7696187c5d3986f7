"""`sentifactory model fetch` as a user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def run_fetch(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from sentifactory.cli import main; main()", "model", "fetch", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_prints_the_folder_and_does_nothing_the_second_time(gemma_checkpoint: Path, repo_root: Path) -> None:
    finished = run_fetch(cwd=repo_root)
    assert finished.returncode == 0
    assert finished.stdout == "saves/pretrained/gemma-3-270m\n"
    assert "nothing to do" in finished.stderr
    assert gemma_checkpoint == repo_root / finished.stdout.strip()


def test_an_unknown_model_is_a_sentence_and_exit_code_2(tmp_path: Path) -> None:
    finished = run_fetch("qwen-72b", "--output_dir", "models", cwd=tmp_path)
    assert finished.returncode == 2
    assert (
        finished.stderr
        == "Error: Unknown pretrained model 'qwen-72b'. Expected: one of gemma-3-270m, multilingual-e5-small.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_folder_is_a_sentence_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "models" / "gemma-3-270m").mkdir(parents=True)
    (tmp_path / "models" / "gemma-3-270m" / "config.json").write_text("{}")
    finished = run_fetch("gemma-3-270m", "--output_dir", "models", cwd=tmp_path)
    assert finished.returncode == 2
    assert "models/gemma-3-270m: This folder is not a complete model" in finished.stderr
    assert "Traceback" not in finished.stderr
