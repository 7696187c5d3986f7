"""The commands as a user types them: `sentifactory train` and `llamafactory-cli train`.

Those that train run in forked processes, which need not import LLaMA-Factory, or in this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked_commands import run_forked

from sentifactory.cli import main

pytestmark = pytest.mark.slow

DEMO = "examples/train_freeze/gemma3_270m_freeze_demo.yaml"
BIN = Path(sys.executable).parent


def run_command(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture
def run_here(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `sentifactory` in this process, with what it prints."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["sentifactory", *words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return subprocess.CompletedProcess(words, end.value.code or 0, *capfd.readouterr())

    return run


def write_words(model: Path, data: Path, output: Path) -> list[str]:
    return [
        f"model_name_or_path={model}", f"dataset_dir={data}", f"output_dir={output}", "max_steps=2",
        "per_device_train_batch_size=2", "freeze_trainable_layers=1", 'save_strategy="no"', "logging_steps=1",
    ]  # fmt: skip


def test_all_problems_in_one_message_and_nothing_written(
    run_here: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(
        "model_name_or_path: saves/pretrained/gemma-3-270m\nstage: sft\ndo_train: true\nlearning_rat: 1.0e-4\n"
        "dataset: nothing\nnum_train_epochs: two\noutput_dir: out\n"
    )
    done = run_here("train", "bad.yaml", "sed=1")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error:")]
    for part in (
        "bad.yaml: 5 problems",
        "learning_rat (line 4) is not a key of LLaMA-Factory, did you mean learning_rate?",
        "num_train_epochs (line 6) is 'two', but a number is expected",
        "sed (command line) is not a key of LLaMA-Factory, did you mean seed?",
        "sentifactory model fetch gemma-3-270m",
        "sentifactory data prepare",
        "Next: fix the file",
    ):
        assert part in line, part
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["none.yaml"], "none.yaml: This recipe does not exist"),
        (["list.yaml"], "list.yaml: The file must be a YAML mapping"),
        (["list.yaml", "learning_rate"], "'learning_rate' is not an override"),
    ],
)
def test_quick_errors(tmp_path: Path, words: list[str], part: str) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n")
    done = run_command(str(BIN / "sentifactory"), "train", *words, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert part in done.stderr


def test_stdout_contains_only_json(repo_root: Path, small_gemma: Path, review_data: Path, tmp_path: Path) -> None:
    words = write_words(small_gemma, review_data, tmp_path / "out")
    done = run_forked("sentifactory", "train", repo_root / DEMO, *words, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    card = json.loads(done.stdout)
    assert card["status"] == "finished"
    assert card == json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert "Acceleration on: answer-only logits" in done.stderr


def test_a_leak_exits_with_3_and_an_allowed_one_is_reported_first(
    run_here: Callable[..., Any],
    repo_root: Path,
    small_gemma: Path,
    review_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "held_out.csv").write_text(
        "text\n质量差，用了两天就坏了，客服也不理人，非常失望！\n", encoding="utf-8"
    )
    words = ["train", str(repo_root / DEMO), *write_words(small_gemma, review_data, tmp_path / "out")]
    refused = run_here(*words, "--test", "held_out.csv")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "1 of the 1 held-out reviews are among the 29 training reviews" in refused.stderr
    assert "held_out.csv, line 2 duplicates" in refused.stderr
    assert not (tmp_path / "out").exists()
    done = run_here(*words, "--test", "held_out.csv", "--allow_leaks")
    assert done.returncode == 0, done.stderr
    warning = "WARNING: the evaluation is contaminated (--allow_leaks). 1 of the 1 held-out reviews"
    assert done.stdout.startswith(warning)
    assert any(line.startswith(warning) for line in done.stderr.splitlines())
    assert (tmp_path / "out" / "llamafactory.log").read_text(encoding="utf-8").startswith(warning)
    assert (tmp_path / "out" / "run.json").read_text(encoding="utf-8").startswith('{\n  "warning": "' + warning)


def test_stock_command_on_the_demo_recipe_gives_the_same_kind_of_checkpoint(
    repo_root: Path, tiny_gemma: Path, review_data: Path, run_recipe: Callable[..., Any], tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    words = write_words(tiny_gemma, review_data, tmp_path / "stock")
    assert (BIN / "llamafactory-cli").is_file()
    done = run_forked("llamafactory-cli", "train", repo_root / DEMO, *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    run_recipe(DEMO.removeprefix("examples/"), tiny_gemma, *words, "plot_loss=true", f"output_dir={tmp_path / 'ours'}")
    files = [{path.name for path in (tmp_path / name).iterdir()} for name in ("stock", "ours")]
    assert files[1] - files[0] == {"run.json", "llamafactory.log", "sentifactory_task.json"}
    assert files[0] <= files[1]
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("stock", "ours")]
    assert weights[0].keys() == weights[1].keys()
    for name, expected in weights[0].items():
        assert torch.allclose(weights[1][name], expected, atol=1e-5), name
