"""Stacks: TF-IDF and a tuned model in one folder, for every command; damaged folders are refused."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scripted_comparison import write_reviews
from tiny_models import build_tiny_bert
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.corpus.dataset.dataset_files import read_labelled
from sentifactory.engines.local.baselines import TfidfEngine
from sentifactory.engines.local.stack_folder import MEMBER_NAME, is_stack, load_stack
from sentifactory.engines.model_identity import identify_engine
from sentifactory.engines.registry import (
    CalibratedEngine,
    build_engine,
    check_engine,
    check_mode,
    choose_kind,
    split_by_prompt,
)
from sentifactory.errors import ConfigError, LeakError
from sentifactory.evaluation.compare import run_comparison
from sentifactory.evaluation.compare_options import CompareOptions
from sentifactory.evaluation.ladder import ladder as ladder_module
from sentifactory.evaluation.ladder.ladder import LadderOptions, run_entry, run_ladder
from sentifactory.evaluation.next_use import suggest_after_comparison
from sentifactory.evaluation.scoring.adapted_scores import adapt_scores
from sentifactory.evaluation.scoring.comparison_leaks import check_saved_calibrations
from sentifactory.evaluation.stack.fit_stack import StackOptions, make_stack
from sentifactory.metrics.calibration import find_calibration
from sentifactory.records import Review
from sentifactory.serving.backends.model_loading import ModelChoice
from sentifactory.system.fingerprint import hash_file
from sentifactory.task.model_folder import read_model_task, write_model_task
from sentifactory.task.task import BINARY_SENTIMENT, Task
from sentifactory.task.task_file import load_task

WORDS = ("差劲失望糟糕", "满意喜欢漂亮", "一般还行普通")


def make_rows(n: int, seed: int, labels: tuple[int | str, ...] = (0, 1)) -> list[tuple[int | str, str]]:
    dice = random.Random(seed)
    n_labels = len(labels)
    return [
        (labels[row % n_labels], "".join(dice.choices(WORDS[row % n_labels] + "房间书干净服务", k=9)) + f"{seed}{row}")
        for row in range(n)
    ]


def save_classifier(folder: Path, labels: tuple[str, ...]) -> Path:
    """A random encoder with a head."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

    headless = folder.with_name(f"{folder.name}_headless")
    headless.mkdir()
    build_tiny_bert(headless)
    set_seed(1)
    AutoModelForSequenceClassification.from_pretrained(headless, id2label=dict(enumerate(labels))).save_pretrained(
        folder
    )
    AutoTokenizer.from_pretrained(headless).save_pretrained(folder)
    for name in ("LICENSE", "licence.txt", "USE_POLICY.md", "COPYING"):
        (folder / name).write_text("as you like")
    (folder / "optimizer.pt").write_bytes(b"a training state")
    return folder


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reviews, a classifier and a stack of it."""
    folder = tmp_path_factory.mktemp("stacks")
    write_reviews(folder / "train.csv", make_rows(120, 1))
    write_reviews(folder / "val.csv", make_rows(60, 2))
    write_reviews(folder / "test.csv", make_rows(40, 3))
    write_model_task(BINARY_SENTIMENT, save_classifier(folder / "encoder", BINARY_SENTIMENT.labels))
    make_stack(make_options(folder, output_dir=folder / "stack"))
    return folder


def make_options(folder: Path, **changes: Any) -> StackOptions:
    values: dict[str, Any] = {
        "model": str(folder / "encoder"), "train_csv": str(folder / "train.csv"), "val_path": str(folder / "val.csv"),
        "output_dir": folder / "made",
    }  # fmt: skip
    return StackOptions(**{**values, **changes})


def run(*words: str | Path) -> Any:
    result = CliRunner().invoke(build_app(), [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_folder_holds_all_of_it_and_no_pickle(workplace: Path) -> None:
    stack = workplace / "stack"
    assert {file.name for file in stack.iterdir()} == {
        "model", "stack.json", "stack.safetensors", "stack_terms.json", "sentifactory_task.json", "calibration.json",
    }  # fmt: skip
    copied = {file.name for file in (stack / MEMBER_NAME).iterdir()}
    assert {"model.safetensors", "config.json", "sentifactory_task.json"} <= copied
    assert {"LICENSE", "licence.txt", "USE_POLICY.md", "COPYING"} <= copied
    assert "optimizer.pt" not in copied
    assert read_model_task(stack) == BINARY_SENTIMENT
    facts = json.loads((stack / "stack.json").read_text(encoding="utf-8"))
    assert facts["validation"]["stack"]["accuracy"] > facts["validation"]["model"]["accuracy"]
    assert facts["fitted_on"] == {
        "file": str(workplace / "val.csv"), "sha256": hash_file(workplace / "val.csv"), "reviews": 60,
    }  # fmt: skip


def test_the_answers_are_the_combination_of_both_parts_also_from_another_place(
    workplace: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(workplace / "stack", tmp_path / "moved")
    reviews = [Review(text) for _, text in make_rows(30, 9)] + [Review(""), Review("xyz")]
    train, _ = read_labelled(workplace / "train.csv", BINARY_SENTIMENT)
    cheap = TfidfEngine(BINARY_SENTIMENT, seed=42).fit(train).predict(reviews)
    with build_engine("encoder", str(workplace / "encoder"), BINARY_SENTIMENT, mode="score") as engine:
        own = engine.predict(reviews)
    _, combination = load_stack(moved)
    told: dict[int, Any] = {}
    with build_engine("auto", str(moved), BINARY_SENTIMENT, mode="score", is_calibrated=False) as engine:
        answers = engine.predict(reviews, told.__setitem__)
    assert [told[at] for at in range(len(reviews))] == answers
    for first, second, answer in zip(cheap, own, answers, strict=True):
        assert first.probabilities is not None
        assert second.probabilities is not None
        wanted = combination.apply([first.probabilities, second.probabilities])
        assert answer.probabilities == pytest.approx(wanted, abs=1e-6)
        assert answer.label == wanted.index(max(wanted))


@pytest.mark.slow
def test_a_comparison_on_its_validation_reviews_leaves_its_calibration_alone(workplace: Path, tmp_path: Path) -> None:
    stack = shutil.copytree(workplace / "stack", tmp_path / "stack")
    before = (stack / "calibration.json").read_text(encoding="utf-8")
    options = CompareOptions(
        csv_path=str(workplace / "test.csv"), base_model=str(workplace / "encoder"), finetuned_model=str(stack),
        output_file=str(tmp_path / "out" / "report.json"), engine="auto", mode="score",
        train_csv=str(workplace / "train.csv"), val_path=str(workplace / "val.csv"),
    )  # fmt: skip
    report = run_comparison(options)
    assert json.loads((stack / "calibration.json").read_text(encoding="utf-8")) == json.loads(before)
    (workplace / "encoder" / "calibration.json").unlink()  # that of base was fitted
    assert "model stack" not in suggest_after_comparison(report, options)
    others = write_reviews(tmp_path / "others.csv", make_rows(60, 7))
    report = run_comparison(replace(options, val_path=str(others)))
    assert report["models"]["tuned"]["calibration"]["fitted_on"]["sha256"] == hash_file(others)
    assert json.loads((stack / "calibration.json").read_text(encoding="utf-8")) == json.loads(before)
    part = write_reviews(tmp_path / "part.csv", make_rows(60, 2)[:40])
    with pytest.raises(LeakError):
        run_comparison(replace(options, val_path=str(part)))


def test_a_saved_calibration_counts_for_its_own_task_only(workplace: Path, three_file: str, tmp_path: Path) -> None:
    folder, val = str(workplace / "stack"), str(workplace / "val.csv")
    with pytest.raises(LeakError):
        check_saved_calibrations([val], [folder], BINARY_SENTIMENT, allow_leaks=False)
    (warning,) = check_saved_calibrations([val], [folder], BINARY_SENTIMENT, allow_leaks=True)
    assert "60" in warning.en
    assert check_saved_calibrations([val], [folder], load_task(three_file), allow_leaks=False) == []
    others = write_reviews(tmp_path / "others.csv", make_rows(60, 7))
    assert check_saved_calibrations([str(others)], [folder], BINARY_SENTIMENT, allow_leaks=False) == []


@pytest.mark.slow
def test_a_calibration_of_other_reviews_is_not_taken_for_its_own(workplace: Path, tmp_path: Path) -> None:
    stack = shutil.copytree(workplace / "stack", tmp_path / "stack")
    others, third = (write_reviews(tmp_path / f"{seed}.csv", make_rows(60, seed)) for seed in (7, 8))
    options = CompareOptions(
        csv_path=str(workplace / "test.csv"), base_model=str(stack), finetuned_model=str(stack),
        output_file=str(tmp_path / "out" / "report.json"), engine="auto", mode="score",
        val_path=str(workplace / "val.csv"),
    )  # fmt: skip
    own = run_comparison(options)["models"]["tuned"]
    assert own["decided"]["source"] == "validation"
    at_another_accuracy = run_comparison(replace(options, target_accuracy=0.8))["models"]["tuned"]
    assert (at_another_accuracy["decided"], at_another_accuracy["calibration"]) == (None, own["calibration"])
    former = json.loads((stack / "calibration.json").read_text(encoding="utf-8"))
    fitted_on = {**former["fitted_on"], "file": str(others), "sha256": hash_file(others)}
    (stack / "calibration.json").write_text(json.dumps({**former, "fitted_on": fitted_on}), encoding="utf-8")
    replaced = run_comparison(options)["models"]["tuned"]
    assert (replaced["decided"], replaced["calibration"]) == (None, None)
    for csv_path in (others, shutil.copyfile(others, tmp_path / "copy.csv")):
        with pytest.raises(LeakError):
            run_comparison(replace(options, csv_path=str(csv_path), val_path=None))
        with pytest.raises(LeakError):
            run_ladder(LadderOptions(str(csv_path), str(workplace / "train.csv"), stack_model=str(stack)))
    run_comparison(replace(options, csv_path=str(third), val_path=None))


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_costs_no_other_calibration(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, tuned = (shutil.copytree(workplace / "encoder", tmp_path / name) for name in ("base", "tuned"))
    for folder in (base, tuned):
        (folder / "calibration.json").unlink(missing_ok=True)
    (base / "calibration.json").mkdir()
    options = CompareOptions(
        csv_path=str(workplace / "test.csv"), base_model=str(base), finetuned_model=str(tuned),
        output_file=str(tmp_path / "out" / "report.json"), engine="auto", mode="score",
        val_path=str(workplace / "val.csv"),
    )  # fmt: skip
    run_comparison(options)
    assert (tuned / "calibration.json").is_file()
    capsys.readouterr()
    others = write_reviews(tmp_path / "others.csv", make_rows(60, 7))
    run_comparison(replace(options, val_path=str(others)))
    assert f"fitted on 60 reviews of {workplace / 'val.csv'}" in capsys.readouterr().err, "what is replaced is named"
    assert [file.suffix for file in (tmp_path / "out").glob("report.json.*")] == []


def test_the_registry_knows_a_stack_by_its_folder(workplace: Path) -> None:
    stack = str(workplace / "stack")
    assert is_stack(stack)
    assert not is_stack(workplace / "encoder")
    assert choose_kind("auto", stack) == "encoder"
    assert split_by_prompt([("auto", stack)]) == ([], [stack])
    assert ModelChoice(stack).engine_kind == "encoder"
    check_engine("auto", stack)
    with build_engine("auto", stack, BINARY_SENTIMENT, mode="score") as engine:
        assert isinstance(engine, CalibratedEngine)
    for mode in ("generate", "constrain"):
        with pytest.raises(ConfigError):
            check_mode(mode, "transformers", stack)
    with pytest.raises(ConfigError) as caught:
        check_engine("http://127.0.0.1:1/v1", stack)
    assert caught.value.code == "stack-address"
    with pytest.raises(ConfigError) as caught:
        make_stack(make_options(workplace, model=stack))
    assert caught.value.code == "stack-model"


def test_another_model_in_it_is_another_identity(workplace: Path, tmp_path: Path) -> None:
    other = shutil.copytree(workplace / "stack", tmp_path / "other")
    facts = json.loads((other / "stack.json").read_text(encoding="utf-8"))
    facts["model"]["weights"]["model.safetensors"] = "0" * 64
    (other / "stack.json").write_text(json.dumps(facts), encoding="utf-8")
    first, second = (
        identify_engine("encoder", str(place), BINARY_SENTIMENT) for place in (workplace / "stack", other)
    )
    assert first != second


def spoil_json(**changes: Any) -> Callable[[Path], None]:
    def spoil(stack: Path) -> None:
        facts = json.loads((stack / "stack.json").read_text(encoding="utf-8"))
        (stack / "stack.json").write_text(json.dumps({**facts, **changes}), encoding="utf-8")

    return spoil


def spoil_tensor(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """Change a tensor, and the hash in stack.json with it, as somebody who means harm would."""

    def spoil(stack: Path) -> None:
        tensors = load_file(stack / "stack.safetensors")
        save_file(tensors | {name: change(tensors[name])}, stack / "stack.safetensors")
        rehash(stack, "stack.safetensors")

    return spoil


def rehash(stack: Path, name: str) -> None:
    facts = json.loads((stack / "stack.json").read_text(encoding="utf-8"))
    facts["files"][name] = hash_file(stack / name)
    (stack / "stack.json").write_text(json.dumps(facts), encoding="utf-8")


def write_terms(text: str) -> Callable[[Path], None]:
    def spoil(stack: Path) -> None:
        (stack / "stack_terms.json").write_text(text, encoding="utf-8")
        rehash(stack, "stack_terms.json")

    return spoil


def replace_weights(stack: Path) -> None:
    (stack / "stack.safetensors").write_bytes(b"\x80\x04cos\nsystem\n")
    rehash(stack, "stack.safetensors")


def plant_pipe(stack: Path) -> None:
    import os

    os.mkfifo(stack / "waits.json")


SPOILS: dict[str, Callable[[Path], object]] = {
    "no JSON": lambda stack: (stack / "stack.json").write_text("{"),
    "a list": lambda stack: (stack / "stack.json").write_text("[]"),
    "deep": lambda stack: (stack / "stack.json").write_text("[" * 10_000),
    "another format": spoil_json(format_version=99),
    "no labels": spoil_json(labels=[]),
    "labels of another kind": spoil_json(labels=[1, [2]]),
    "unknown labels of TF-IDF": spoil_json(tfidf_labels=[0, 7]),
    "labels of TF-IDF that cannot be compared": spoil_json(tfidf_labels=[0, "a"]),
    "labels of TF-IDF that cannot be hashed": spoil_json(tfidf_labels=[[0], {}]),
    "files of another kind": spoil_json(files=[]),
    "no hashes": spoil_json(files={}),
    "no hashes of the model": spoil_json(model={}),
    "hashes of another kind": spoil_json(model={"weights": 3, "settings": None}),
    "weights gone": lambda stack: (stack / "stack.safetensors").unlink(),
    "terms gone": lambda stack: (stack / "stack_terms.json").unlink(),
    "model gone": lambda stack: shutil.rmtree(stack / "model"),
    "weights of the model gone": lambda stack: (stack / "model" / "model.safetensors").unlink(),
    "weights changed": lambda stack: (stack / "stack.safetensors").write_bytes(b"x"),
    "a pickle for weights": replace_weights,
    "a setting changed": lambda stack: (stack / "model" / "tokenizer_config.json").write_text("{}"),
    "a template added": lambda stack: (stack / "model" / "chat_template.jinja").write_text("no"),
    "weights added": lambda stack: (stack / "model" / "other.safetensors").write_bytes(b""),
    "terms that are no list": write_terms("{}"),
    "terms that are numbers": write_terms("[1, 2]"),
    "a term twice": write_terms('["a", "a"]'),
    "too few terms": write_terms('["a"]'),
    "not finite": spoil_tensor("tfidf.idf", lambda values: values * np.nan),
    "too few weights": spoil_tensor("combination.weights", lambda values: values[:1]),
    "of another shape": spoil_tensor("tfidf.coef", lambda values: values.T.copy()),
    "of another type": spoil_tensor("combination.bias", lambda values: values.astype(bool)[:1]),
    "a pipe": plant_pipe,
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_a_damaged_or_hostile_folder_is_refused(
    workplace: Path, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    stack = shutil.copytree(workplace / "stack", tmp_path / "stack")
    spoil(stack)
    with pytest.raises(ConfigError) as caught, build_engine("auto", str(stack), BINARY_SENTIMENT, mode="score"):
        pass
    assert caught.value.exit_code == 2


def test_another_task_is_refused(workplace: Path, three: Task) -> None:
    with pytest.raises(ConfigError) as caught:
        build_engine("auto", str(workplace / "stack"), three, mode="score")
    assert caught.value.code == "stack-task"


def test_a_validation_review_that_training_has_seen_is_refused(workplace: Path, tmp_path: Path) -> None:
    rows = [*make_rows(60, 2), *make_rows(120, 1)[:1]]
    val = write_reviews(tmp_path / "val.csv", rows)
    with pytest.raises(LeakError):
        make_stack(make_options(workplace, val_path=str(val)))
    assert not (workplace / "made").exists()


def test_a_test_review_that_the_stack_was_fitted_on_is_a_leak(workplace: Path) -> None:
    options = LadderOptions(
        str(workplace / "val.csv"), str(workplace / "train.csv"), stack_model=str(workplace / "stack")
    )
    with pytest.raises(LeakError):
        run_ladder(options)


def test_a_file_that_the_stack_was_fitted_on_is_known_wherever_it_lies(workplace: Path, tmp_path: Path) -> None:
    stack = shutil.copytree(workplace / "stack", tmp_path / "stack")
    facts = json.loads((stack / "stack.json").read_text(encoding="utf-8"))
    moved = {part: {**facts[part], "file": f"/elsewhere/{part}.csv"} for part in ("fitted_on", "trained_on")}
    spoil_json(**moved)(stack)
    (stack / "calibration.json").unlink()
    copy = shutil.copyfile(workplace / "val.csv", tmp_path / "copy.csv")
    with pytest.raises(LeakError):
        run_ladder(LadderOptions(str(copy), str(workplace / "train.csv"), stack_model=str(stack)))


@pytest.mark.parametrize("place", ["file", "folder"])
def test_nothing_is_replaced(workplace: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("file", "folder/mine.txt"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError) as caught:
        make_stack(make_options(workplace, output_dir=tmp_path / place))
    assert caught.value.code == "output-foreign"
    assert (tmp_path / "folder" / "mine.txt").read_text() == (tmp_path / "file").read_text() == "mine"


def test_validation_reviews_without_a_label(workplace: Path, tmp_path: Path, three_file: str) -> None:
    labels = load_task(three_file).labels
    for name, n, known in (("train", 150, labels), ("val", 90, labels[:2])):
        write_reviews(tmp_path / f"{name}.csv", make_rows(n, n, known))
    save_classifier(tmp_path / "encoder", labels)
    with pytest.raises(ConfigError) as caught:
        make_stack(make_options(tmp_path, task=three_file))
    assert caught.value.code == "calibration-too-few"
    assert labels[2] in caught.value.what


def test_too_few_validation_reviews(workplace: Path, tmp_path: Path) -> None:
    val = write_reviews(tmp_path / "val.csv", make_rows(20, 2))
    with pytest.raises(ConfigError) as caught:
        make_stack(make_options(workplace, val_path=str(val)))
    assert caught.value.code == "calibration-too-few"


@pytest.mark.slow
def test_the_commands(workplace: Path, tmp_path: Path) -> None:
    made = run(
        "model", "stack", workplace / "encoder", "--train_csv", workplace / "train.csv",
        "--val_path", workplace / "val.csv", "--output_dir", tmp_path / "stack", "--json",
    )  # fmt: skip
    assert json.loads(made.stdout)["labels"] == list(BINARY_SENTIMENT.labels)
    assert hash_file(tmp_path / "stack" / "stack.safetensors") == hash_file(workplace / "stack" / "stack.safetensors")
    shown = run("predict", "很满意", "--model", tmp_path / "stack", "--json")
    (answer,) = json.loads(shown.stdout)[0]["answers"]
    assert answer["label"] == "positive"
    assert answer["is_sure"] is not None
    labelled = run("label", workplace / "test.csv", tmp_path / "out.csv", "--model", tmp_path / "stack", "--json")
    assert json.loads(labelled.stdout)["labelled"] == 40


@pytest.mark.slow
def test_an_entry_of_the_ladder(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder_module, "run_in_own_process", lambda key, inputs: (run_entry(key, inputs), 1))
    options = LadderOptions(
        str(workplace / "test.csv"), str(workplace / "train.csv"), stack_model=str(workplace / "stack")
    )
    entry = run_ladder(options)["rungs"]["stack"]
    assert entry["metrics"]["accuracy"] > 0.8
    assert entry["calibration"]["method"] == "temperature"
    assert entry["size_bytes"] > (workplace / "encoder" / "model.safetensors").stat().st_size
    engine_free = build_engine("auto", str(workplace / "stack"), BINARY_SENTIMENT, mode="score", is_calibrated=False)
    reviews, _ = read_labelled(workplace / "test.csv", BINARY_SENTIMENT)
    with engine_free as engine:
        uncorrected = engine.predict(reviews)
    monkeypatch.setattr("sentifactory.metrics.prior_shift.MIN_REVIEWS", 1)
    wanted = adapt_scores(uncorrected, reviews, find_calibration(str(workplace / "stack"), BINARY_SENTIMENT),
                          BINARY_SENTIMENT)  # fmt: skip
    adapted = run_ladder(replace(options, val_path=str(workplace / "val.csv"), adapt_prior=True))["adapted"]
    shift = adapted["models"]["stack"]["shift"]
    assert wanted.shift is not None
    assert shift["shares"] == pytest.approx(wanted.shift.shares, abs=1e-9)
    missing = run_ladder(LadderOptions(options.csv_path, options.train_csv, stack_model=str(workplace / "encoder")))
    assert "missing" in missing["rungs"]["stack"]


@pytest.mark.slow
def test_three_labels(tmp_path: Path, three_file: str) -> None:
    three = load_task(three_file)
    for name, n, seed in (("train", 150, 1), ("val", 90, 2)):
        write_reviews(tmp_path / f"{name}.csv", make_rows(n, seed, three.labels))
    save_classifier(tmp_path / "encoder", three.labels)
    make_stack(make_options(tmp_path, task=three_file))
    with build_engine("auto", str(tmp_path / "made"), three, mode="score") as engine:
        rows = make_rows(30, 4, three.labels)
        answers = engine.predict([Review(text) for _, text in rows])
    right = [
        three.labels[answer.label] == label
        for answer, (label, _) in zip(answers, rows, strict=True)
        if answer.label is not None
    ]
    assert sum(right) > 20
    assert all(answer.probabilities is not None and len(answer.probabilities) == 3 for answer in answers)


@pytest.mark.slow
def test_a_language_model_in_it_is_asked_by_prompt(workplace: Path, short_gemma: Path, tmp_path: Path) -> None:
    options = make_options(workplace, model=str(short_gemma), output_dir=tmp_path / "stack")
    make_stack(options)
    stack = str(tmp_path / "stack")
    assert choose_kind("auto", stack) == "transformers"
    assert split_by_prompt([("transformers", stack)]) == ([stack], [])
    with build_engine("transformers", stack, BINARY_SENTIMENT, mode="score") as engine:
        (answer,) = engine.predict([Review("很满意，喜欢")])
    assert answer.label == 1
    other = Task("other", BINARY_SENTIMENT.labels, "sentiment", (0, 1), "Another question: {text}")
    with pytest.raises(ConfigError) as caught:
        build_engine("transformers", stack, other, mode="score")
    assert caught.value.code == "stack-task"
