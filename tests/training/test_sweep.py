"""Sweeps of real LLaMA-Factory runs on a tiny model: a kill, continuation, the shared cache, other prompts, leaks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_split import prepare_split

from sentifactory.corpus.dataset.dataset_files import read_labelled
from sentifactory.corpus.leakage.leak_guard import find_held_out
from sentifactory.errors import ConfigError, LeakError
from sentifactory.metrics.label_metrics import compute_metrics
from sentifactory.task.task import REFERENCE_SENTIMENT
from sentifactory.training.recipe.recipe import load_recipe
from sentifactory.training.run.checkpoints import MARKER_NAME
from sentifactory.training.sweep import sweep
from sentifactory.training.sweep.sweep_plan import SweepOptions, make_plan, write_or_check_plan
from sentifactory.training.sweep.sweep_report import compare_answers, describe_best, rank_trials, render_markdown
from sentifactory.training.sweep.trial import FAILED, FINISHED, KILLED, REQUEST, run_trial, run_trial_in_subprocess

pytestmark = pytest.mark.slow
DEMO = "examples/train_freeze/gemma3_270m_freeze_demo.yaml"


@pytest.fixture
def options(small_gemma: Path, repo_root: Path, tmp_path: Path) -> SweepOptions:
    words = (
        f"model_name_or_path={small_gemma}", f"dataset_dir={prepare_split(tmp_path)}", "dataset=mine_train",
        "per_device_train_batch_size=4", "max_steps=12", "save_steps=2", "plot_loss=false", "logging_steps=6",
    )  # fmt: skip
    return SweepOptions(repo_root / DEMO, words, output_dir=tmp_path / "sweep")


def replace(options: SweepOptions, **changes: Any) -> SweepOptions:
    import dataclasses

    return dataclasses.replace(options, **changes)


# A killer in another process or thread may come too late for a run of milliseconds; this one cannot.
STRIKE = """
import os, signal, sys

def strike(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith({target!r}):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(strike)
"""


def run_until_checkpoint(folder: Path, step: int, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a trial whose process gets signal 9 as it is about to mark the checkpoint of a step as complete."""
    scratch.mkdir()
    (scratch / "sitecustomize.py").write_text(
        STRIKE.format(target=f"checkpoint-{step}/{MARKER_NAME}"), encoding="utf-8"
    )
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(scratch), prepend=os.pathsep)
        return run_trial_in_subprocess(folder)


def test_a_killed_trial_is_continued_and_the_cache_shared(
    options: SweepOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: list[str] = []

    def run_one(folder: Path) -> dict[str, Any]:
        run.append(folder.name)
        if len(run) == 2:
            return run_until_checkpoint(folder, 6, tmp_path / "strike", monkeypatch)
        return run_trial(folder)

    monkeypatch.setattr(sweep, "run_trial_in_subprocess", run_one)
    search = ("freeze_trainable_layers=[1, 2]", "learning_rate=[1e-3, 1e-4]")
    options = replace(options, search=search, trials=4)
    with pytest.raises(ConfigError, match="learning_rate = much"):
        sweep.run_sweep(replace(options, search=("learning_rate=[1e-4, much]",)))
    assert not options.output_dir.exists()
    first = sweep.run_sweep(options)
    assert sorted(trial["status"] for trial in first["trials"]) == [FINISHED, FINISHED, FINISHED, KILLED]
    assert "signal 9" in first["trials"][-1]["error"] or "killed" in first["trials"][-1]["error"]
    assert run == ["000", "001", "002", "003"]

    second = sweep.run_sweep(options)
    assert run[4:] == ["001"]
    trials = {trial["number"]: trial for trial in second["trials"]}
    assert [trials[number]["status"] for number in range(4)] == [FINISHED] * 4
    assert trials[1]["training"]["continued_from"].endswith("checkpoint-4")
    assert sorted({tuple(trial["values"].values()) for trial in trials.values()}) == [
        (layers, rate) for layers in (1, 2) for rate in (1e-4, 1e-3)
    ]
    # Two steps and more of the killed trial had been kept when trial 3 came to need the same; then it was complete.
    uses = {number: trial["training"]["trunk"]["samples"] for number, trial in trials.items()}
    layers = {number: trial["values"]["freeze_trainable_layers"] for number, trial in trials.items()}
    assert layers == {0: 2, 1: 1, 2: 2, 3: 1}
    assert uses[0] == {"taken": 24, "computed": 24}
    assert uses[2] == {"taken": 48, "computed": 0}
    assert uses[3]["computed"] <= 24 - 8
    assert uses[1]["computed"] == 0

    folder = options.output_dir
    best = second["trials"][0]
    assert [trial["metrics"]["macro_f1"] for trial in second["trials"]] == sorted(
        (trial["metrics"]["macro_f1"] for trial in trials.values()), reverse=True
    )
    kept = [file.parent.parent.name for file in folder.rglob("*.safetensors")]
    assert kept == [f"{best['number']:03d}"]
    recipe = load_recipe(folder / "best.yaml")
    assert {key: recipe.settings[key] for key in best["values"]} == best["values"]
    assert recipe.settings["output_dir"] == str(folder / "best")
    assert f"sentifactory train {folder / 'best.yaml'}" in recipe.path.read_text(encoding="utf-8")
    assert (folder / "sweep.png").read_bytes()[1:4] == b"PNG"
    assert json.loads((folder / "sweep.json").read_text(encoding="utf-8")) == second
    assert f"trial {best['number']}" in (folder / "sweep.md").read_text(encoding="utf-8")
    assert sweep.run_sweep(options)["trials"] == second["trials"]  # nothing is left to be done
    assert len(run) == 5
    with pytest.raises(ConfigError, match="has other seed"):
        sweep.run_sweep(replace(options, seed=1))


def test_the_same_reviews_with_another_prompt(options: SweepOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def run_one(folder: Path) -> dict[str, Any]:
        asked.append(json.loads((folder / "request.json").read_text())["task"])
        return run_trial(folder)

    monkeypatch.setattr(sweep, "run_trial_in_subprocess", run_one)
    options = replace(
        options,
        overrides=(*options.overrides, "max_steps=2", "freeze_trainable_layers=1"),
        search=("task=[binary_sentiment, reference_sentiment]", "loss=[answer]"),
        val_samples=6,
    )
    result = sweep.run_sweep(options)
    assert asked[0] == "binary_sentiment"  # the recipe as it is comes first
    assert sorted(asked) == ["binary_sentiment", "reference_sentiment"]
    assert result["validation"]["reviews"] == 6
    folder = options.output_dir / "data" / "reference_sentiment"
    prompts = [json.loads(line)["messages"][0]["content"] for line in (folder / "train.jsonl").open(encoding="utf-8")]
    data = Path(next(word for word in options.overrides if word.startswith("dataset_dir=")).partition("=")[2])
    reviews, _ = read_labelled(data / "mine" / "train.csv", REFERENCE_SENTIMENT)
    assert prompts == [REFERENCE_SENTIMENT.render_prompt(review.text) for review in reviews]
    best = load_recipe(options.output_dir / "best.yaml")
    assert best.settings["dataset"] == f"{result['trials'][0]['values']['task']}_train"


def test_leaks_into_the_validation_reviews_are_refused(options: SweepOptions, tmp_path: Path) -> None:
    options = replace(options, search=("freeze_trainable_layers=[1, 2]",))
    plan = make_plan(options)
    assert [path.name for path in find_held_out([plan.split.train_jsonl])] == ["val.csv", "test.csv"]
    for name in ("test.csv", "train.csv"):
        with pytest.raises(LeakError):
            make_plan(replace(options, val_path=plan.split.val.with_name(name)))
    with pytest.raises(ConfigError, match=r"have the task binary_sentiment .*--task is reference_sentiment"):
        make_plan(replace(options, task="reference_sentiment"))
    with pytest.raises(ConfigError, match="no validation reviews"):
        make_plan(replace(options, val_path=tmp_path / "none.csv"))


def test_a_failed_trial_is_recorded(options: SweepOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        (folder / "request.json").write_text(
            '{"val_file": "none.csv", "task": "binary_sentiment", "is_trained": false}'
        )
        return run_trial(folder)

    monkeypatch.setattr(sweep, "run_trial_in_subprocess", fail)
    options = replace(options, search=("freeze_trainable_layers=[1]",))
    with pytest.raises(ConfigError, match="No trial of the sweep succeeded"):
        sweep.run_sweep(options)
    result = json.loads((options.output_dir / "sweep.json").read_text(encoding="utf-8"))
    assert result["trials"][0]["status"] == FAILED
    assert "none.csv" in result["trials"][0]["error"]
    assert "none.csv" in (options.output_dir / "sweep.md").read_text(encoding="utf-8")


def test_ctrl_c_ends_a_trial_without_a_traceback(tmp_path: Path) -> None:
    pipe = tmp_path / REQUEST
    os.mkfifo(pipe)  # it reads what it is to do until the other end is closed
    command = [sys.executable, "-m", "sentifactory.training.sweep.trial", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as trial, pipe.open("w"):
        trial.send_signal(signal.SIGINT)
        assert trial.stderr is not None
        assert (trial.stderr.read(), trial.wait()) == ("", 130)


def test_the_best_of_many_trials_is_corrected_for_all_of_them() -> None:
    def finish(fixed: int) -> dict[str, Any]:
        return {"status": FINISHED, "right": [place >= 20 - fixed for place in range(100)]}

    outcomes = {0: finish(0), 1: finish(6), 2: finish(3), 3: {"status": KILLED, "error": "It was killed."}}
    alone = compare_answers({0: outcomes[0], 1: outcomes[1]}, 0, 1)
    assert alone is not None
    assert (alone["p_value"], alone["p_value_holm"], alone["is_shown_holm"]) == (0.03125, None, True)
    chosen = compare_answers(outcomes, 0, 1)
    assert chosen is not None
    assert (chosen["p_value"], chosen["p_value_holm"]) == (0.03125, 0.0625)
    assert (chosen["is_shown"], chosen["is_shown_holm"]) == (True, False)


def test_the_best_is_compared_with_the_original_recipe() -> None:
    truth = [0, 1] * 50
    outcomes: dict[int, dict[str, Any]] = {1: {"status": KILLED, "error": "It was killed."}}
    for number, wrong in ((0, 40), (2, 5), (3, 5)):
        answers = [1 - label if place < wrong else label for place, label in enumerate(truth)]
        metrics = compute_metrics(truth, answers, ("negative", "positive")).to_dict()
        outcomes[number] = {"status": FINISHED, "metrics": metrics}
    assert rank_trials(outcomes) == [2, 3, 0]
    best = {"number": 2, "values": {"learning_rate": 0.000123456}, **outcomes[2]}
    test = {
        "difference": 0.35,
        "interval": {"low": 0.26, "high": 0.44, "confidence": 0.95},
        "p_value": 1e-9,
        "p_value_holm": 2e-9,
        "is_shown": True,
        "is_shown_holm": True,
    }
    result = {"best": 2, "start": 0, "best_against_start": test, "trials": [best]}
    assert describe_best(result) == (
        "Best: trial 2 (learning_rate 0.000123), macro-F1 95.0% on 100 validation reviews. Compared with the "
        "original recipe (trial 0): +35.0 points of accuracy (26.0 to 44.0; p < 0.001, corrected for all trials "
        "(Holm)). The difference is significant."
    )
    nothing = {"best": None, "space": {}, "trials": [], "recipe": "a.yaml", "command": "sweep"}
    assert "No trial has succeeded" in render_markdown(nothing)


@pytest.mark.parametrize("content", [b"", b"[]", b"1", b'{"a":' * 5000, b"\xff", b"{}"])
def test_a_plan_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes) -> None:
    write_or_check_plan(tmp_path, {"seed": 1}, "name another folder")
    write_or_check_plan(tmp_path, {"seed": 1}, "name another folder")
    (plan,) = tmp_path.iterdir()
    plan.write_bytes(content)
    with pytest.raises(ConfigError):
        write_or_check_plan(tmp_path, {"seed": 1}, "name another folder")
    assert plan.read_bytes() == content
