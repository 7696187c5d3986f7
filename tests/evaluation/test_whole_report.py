"""A comparison with everything: several test files, validation reviews, probabilities; and the schema of its report.

The engines are real ones: TF-IDF on few and on many made reviews stands for base and tuned.
"""

from __future__ import annotations

import csv
import json
import random
import re
import sys
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from expected_words import compare_words, read_words
from jsonschema import Draft202012Validator
from scripted_comparison import Workplace, write_reviews

from sentifactory.engines.base import OnAnswer
from sentifactory.engines.local.baselines import TfidfEngine
from sentifactory.errors import ConfigError, LeakError
from sentifactory.evaluation import compare
from sentifactory.evaluation.report.report_console import print_report
from sentifactory.metrics.calibration import load_calibration
from sentifactory.metrics.number_formats import format_speed
from sentifactory.records import Prediction, Review
from sentifactory.system.formats import format_bytes, name_seconds
from sentifactory.task.task import BINARY_SENTIMENT, Task

SCHEMA = json.loads(
    resources.files("sentifactory.evaluation.report").joinpath("report_schema.json").read_text("utf-8")
)
CHECKER = Draft202012Validator(SCHEMA)
GOOD, BAD = "好棒美佳优赞喜爱", "差糟坏烂劣厌恨怒"


def make_rows(n: int, seed: int, *, noise: float = 0.35) -> list[tuple[int, str]]:
    """Made reviews: characters of both tempers, more of the label's own; hard enough that models differ."""
    dice = random.Random(seed)
    rows = []
    for row in range(n):
        label = row % 2
        own, other = (GOOD, BAD) if label else (BAD, GOOD)
        text = "".join(dice.choice(other if dice.random() < noise else own) for _ in range(dice.choice([7, 11, 30])))
        rows.append((label, f"{text}{seed}号{row}"))
    return rows


class HalfDeaf(TfidfEngine):
    """TF-IDF that, as a model in mode generate does, leaves some reviews without a readable answer."""

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        found = super().predict(reviews)
        return [
            Prediction(None, raw="好的") if row % 3 == 0 else Prediction(one.label) for row, one in enumerate(found)
        ]


@pytest.fixture
def place(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    folder = workplace.folder
    for name, n, seed in (("test", 120, 1), ("other", 80, 2), ("val", 100, 3), ("train", 200, 4)):
        write_reviews(folder / f"{name}.csv", make_rows(n, seed, noise=0.45 if name == "other" else 0.35))

    def build(kind: str, model: str, task: Task, *, name: str, **_: Any) -> TfidfEngine:
        rows = make_rows(20 if name == "base" else 400, 5)
        return TfidfEngine(task, name=name).fit([Review(text, label) for label, text in rows])

    monkeypatch.setattr(compare, "build_engine", build)
    return workplace


def run_everything(place: Workplace, **changes: Any) -> dict[str, Any]:
    options = {
        "more_csv_paths": (str(place.folder / "other.csv"),),
        "val_path": str(place.folder / "val.csv"),
        "train_csv": str(place.folder / "train.csv"),
        "mode": "score",
        "target_accuracy": 0.8,
    }
    return place.run(**{**options, **changes})


def test_the_schema_is_one_and_every_name_in_it_is_there() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    named = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(SCHEMA)))
    assert named == set(SCHEMA["$defs"])


@pytest.mark.slow
def test_the_report_fits_its_schema_in_every_form(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    run_everything(place)
    whole = place.read()
    assert list(CHECKER.iter_errors(whole)) == []

    def build(kind: str, model: str, task: Task, *, name: str, **_: Any) -> TfidfEngine:
        return HalfDeaf(task, name=name).fit([Review(text, label) for label, text in make_rows(60, 5)])

    monkeypatch.setattr(compare, "build_engine", build)
    place.run(mode="generate")
    words_only = place.read()
    assert list(CHECKER.iter_errors(words_only)) == []
    assert words_only["models"]["base"]["decided"] is None
    assert words_only["models"]["base"]["metrics"]["parsed_only"]["coverage"] == 1
    assert words_only["models"]["base"]["probability"] is None


@pytest.mark.slow
def test_what_can_be_decided_stands_with_every_model_that_has_probabilities(place: Workplace) -> None:
    report = run_everything(place)
    for result in (report, *report["further_tests"]):
        for name in ("base", "tuned", "tfidf"):
            decided, sure = result["models"][name]["decided"], result["models"][name]["sure"]
            assert decided["source"] == "validation"
            assert decided["target_error"] == pytest.approx(0.2)
            assert decided["share"] == (sure["coverage"] if sure else 0)
            if sure:
                assert decided["error"] == pytest.approx(1 - sure["accuracy"])
        assert result["models"]["majority"]["decided"] is None
    assert "Decided at up to 20% error (validation)" in (place.folder / "out" / "report.md").read_text(
        encoding="utf-8"
    )
    report = run_everything(place, val_path=None)
    assert {report["models"][name]["decided"]["source"] for name in ("base", "tuned", "tfidf")} == {"cross-fit"}


@pytest.mark.slow
def test_the_schema_is_not_blind(place: Workplace) -> None:
    run_everything(place)
    for path, value in [
        (("models", "base", "metrics", "accuracy"), 1.5),
        (("models", "tuned", "metrics", "extra"), 1),
        (("further_tests", 0, "predictions", 0, "base", "label"), "positive"),
        (("schema_version",), 1),
        (("verdict",), {}),
    ]:
        report = place.read()
        inner = report
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = value
        assert not CHECKER.is_valid(report), path


@pytest.mark.slow
def test_every_model_alike_is_adapted_to_the_shares_of_the_test_reviews(
    place: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four of five test reviews are positive, half of the validation reviews."""
    rows = [row for row in make_rows(900, 1) if row[0] or row[1].endswith(("0", "4"))]
    write_reviews(place.folder / "test.csv", rows)
    write_reviews(place.folder / "val.csv", make_rows(400, 3))
    plain = run_everything(place)
    assert "adapted" not in plain
    report = run_everything(place, adapt_prior=True)
    assert list(CHECKER.iter_errors(place.read())) == []
    assert report["models"]["tuned"]["metrics"] == plain["models"]["tuned"]["metrics"]
    assert report["verdict"] == plain["verdict"]
    share = sum(label for label, _ in rows) / len(rows)
    for name, one in report["adapted"]["models"].items():
        assert one["true_shares"][1] == pytest.approx(share)
        if one["is_adapted"]:
            assert one["shift"]["intervals"][1]["low"] < share < one["shift"]["intervals"][1]["high"], name
            before = report["models"][name]["metrics"]["correct"]
            assert one["metrics"]["correct"] - before == one["against_unadapted"]["difference"] * len(rows)
    assert set(report["adapted"]["models"]) == {"base", "tuned", "tfidf"}
    assert report["adapted"]["models"]["tuned"]["is_adapted"]
    assert (
        report["adapted"]["models"]["tuned"]["metrics"]["accuracy"] > plain["models"]["tuned"]["metrics"]["accuracy"]
    )
    assert len(report["adapted"]["paired_tests"]) == 3
    refused = report["further_tests"][0]["adapted"]["models"]["tuned"]
    assert refused["refused"], "80 reviews are too few"
    assert not refused["is_adapted"]
    assert refused["metrics"] == report["further_tests"][0]["models"]["tuned"]["metrics"]
    capsys.readouterr()
    print_report(report)
    for text in (capsys.readouterr().out, place.page(), (place.folder / "out" / "report.md").read_text("utf-8")):
        assert "Adapted to the shares of the labels" in text
    later = run_everything(place, adapt_prior=True, val_path=None)["adapted"]["models"]
    assert later["tuned"]["shift"] == report["adapted"]["models"]["tuned"]["shift"], "the saved correction is the same"
    assert later["tfidf"]["refused"], "nothing was fitted for it"


def test_adapting_needs_probabilities(place: Workplace) -> None:
    with pytest.raises(ConfigError) as caught:
        run_everything(place, adapt_prior=True, mode="generate")
    assert caught.value.code == "prior-no-probabilities"


@pytest.mark.slow
def test_every_test_file_has_its_verdict_and_its_distance_from_the_first(place: Workplace) -> None:
    report = run_everything(place)
    further = report["further_tests"][0]
    assert further["data"]["test"]["file"].endswith("other.csv")
    assert len(report["predictions"]) == 120
    assert len(further["predictions"]) == 80
    first, other = (one["models"]["tuned"]["metrics"]["accuracy"] for one in (report, further))
    change = further["from_first"]["tuned"]
    assert change["difference"] == pytest.approx(other - first)
    assert change["interval"]["low"] < change["difference"] < change["interval"]["high"]
    assert further["verdict"]["headline"]["en"] in place.page().replace("\u00a0", " ")
    assert "other.csv" in (place.folder / "out" / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_calibrations_are_fitted_on_validation_saved_and_used_again(place: Workplace) -> None:
    report = run_everything(place)
    for side in ("base", "tuned"):
        saved = load_calibration(place.folder / f"{side}_model", BINARY_SENTIMENT)
        assert saved is not None
        assert saved.fitted_on["file"].endswith("val.csv")
        assert saved.fitted_on["reviews"] == 100
        assert saved.fitted_on["nll_after"] <= saved.fitted_on["nll_before"]
        figures = report["models"][side]
        assert figures["calibration"]["temperature"] == saved.temperature
        shares = [row[side]["probabilities"] for row in report["predictions"]]
        corrected = [max(saved.apply(row)) for row in shares]
        assert figures["calibrated"]["mean_confidence"] == pytest.approx(sum(corrected) / 120, abs=1e-6)
    later = run_everything(place, val_path=None)
    assert later["models"]["tuned"]["calibrated"] == report["models"]["tuned"]["calibrated"]
    assert later["models"]["tfidf"]["calibrated"] is None  # no folder to have kept it in
    (place.folder / "tuned_model" / "model.safetensors").write_bytes(b"other weights")
    assert run_everything(place, val_path=None)["models"]["tuned"]["calibrated"] is None


@pytest.mark.slow
def test_the_test_reviews_do_not_touch_the_calibration(place: Workplace) -> None:
    first = run_everything(place)["models"]["tuned"]["calibration"]
    write_reviews(place.folder / "test.csv", make_rows(90, 77, noise=0.5))
    assert run_everything(place)["models"]["tuned"]["calibration"] == first


@pytest.mark.slow
def test_a_threshold_is_measured_on_the_test_reviews(place: Workplace) -> None:
    report = run_everything(place)
    tuned = report["models"]["tuned"]
    assert tuned["sure"]["threshold"] == tuned["calibration"]["threshold"]
    assert 0 < tuned["sure"]["coverage"] <= 1
    assert tuned["sure"]["answered"] == round(tuned["sure"]["coverage"] * 120)


@pytest.mark.slow
def test_the_mistakes_as_tables(place: Workplace) -> None:
    report = run_everything(place)
    folder = place.folder / "out" / "report_mistakes"

    def read(name: str) -> list[dict[str, str]]:
        with (folder / name).open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))

    assert {path.name for path in folder.iterdir()} == {
        "flips.csv", "mistakes.csv", "groups.csv", "words.csv", "unparsed.csv",
    }  # fmt: skip
    flips = [row for row in read("flips.csv") if row["test"].endswith("test.csv")]
    test = report["paired_tests"]["tuned_vs_base"]
    assert [row["flip"] for row in flips].count("fixed") == test["fixed"]
    assert [row["flip"] for row in flips].count("broken") == test["broken"]
    mistakes = [row for row in read("mistakes.csv") if row["test"].endswith("test.csv")]
    assert mistakes[0]["model"] == "tuned"
    for model, figures in report["models"].items():
        wrong = [row for row in mistakes if row["model"] == model]
        assert len(wrong) == (120 - figures["metrics"]["correct"]) * (model != "majority")
        assert all(row["label"] != row["answer"] for row in wrong)
        for known in ("1", "0"):
            shares = [float(row["probability"]) for row in wrong if row["tfidf_is_right"] == known]
            assert shares == sorted(shares, reverse=True)
        rights = [row["tfidf_is_right"] for row in wrong]
        assert rights == sorted(rights, reverse=True), "first those that TF-IDF has right"
    groups = [row for row in read("groups.csv") if row["test"].endswith("other.csv") and row["model"] == "base"]
    assert sum(int(row["reviews"]) for row in groups) == 80
    assert read("unparsed.csv") == []


def test_generated_text_gives_no_probability_figures(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(kind: str, model: str, task: Task, *, name: str, **_: Any) -> TfidfEngine:
        return HalfDeaf(task, name=name).fit([Review(text, label) for label, text in make_rows(60, 5)])

    monkeypatch.setattr(compare, "build_engine", build)
    place.run(mode="generate", val_path=str(place.folder / "val.csv"))
    page = place.page()
    assert "the mode score" in page
    assert "Are the probabilities reliable?" not in page
    assert "the mode score" in (place.folder / "out" / "report.md").read_text(encoding="utf-8")
    assert not (place.folder / "tuned_model" / "calibration.json").exists()


def test_reviews_that_validation_has_seen_are_refused(place: Workplace) -> None:
    write_reviews(place.folder / "val.csv", [*make_rows(60, 3), make_rows(120, 1)[0]])
    with pytest.raises(LeakError, match="1 of the 120 test reviews"):
        run_everything(place)
    assert not (place.folder / "out").exists()


def test_the_same_test_file_twice_is_refused(place: Workplace) -> None:
    with pytest.raises(ConfigError) as caught:
        run_everything(place, more_csv_paths=(str(place.folder / "." / "test.csv"),))
    assert (caught.value.code, caught.value.where) == ("test-file-twice", "--csv_path")


@pytest.mark.parametrize("target", [0, 1.2, -1])
def test_an_accuracy_that_cannot_be_is_refused(place: Workplace, target: float) -> None:
    with pytest.raises(ConfigError, match="--target_accuracy") as caught:
        run_everything(place, target_accuracy=target)
    assert caught.value.code == "option-value"


@pytest.mark.slow
def test_the_manifest_of_a_prepared_file_is_named(place: Workplace) -> None:
    Path(place.folder / "manifest.json").write_text("{}")
    report = run_everything(place)
    assert report["data"]["test"]["manifest_sha256"] == report["data"]["train"]["manifest_sha256"]
    assert report["data"]["test"]["manifest_sha256"][:12] in place.page()


@pytest.mark.slow
def test_the_table_on_the_terminal(place: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    report = run_everything(place)
    capsys.readouterr()
    print_report(report)
    told = " ".join(capsys.readouterr().out.split())
    for words in ("ROC-AUC", "ECE", "MCC", "other.csv", report["verdict"]["headline"]["en"]):
        assert words in told, words


def name_places(text: str, place: Workplace, report: dict[str, Any]) -> str:
    """Replace what differs from run to run or between machines by placeholders."""
    machine = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    for found, word in {
        str(place.folder): "FOLDER",
        str(place.folder).replace("_", "\\_"): "FOLDER",
        versions: "VERSIONS",
        report["created_at"].replace("T", " ").replace("+00:00", " UTC"): "MOMENT",
        machine["processor"]: "PROCESSOR",
        machine["system"]: "SYSTEM",
    }.items():
        text = text.replace(found, word)
    for model in report["models"].values():
        for key, show, word in (
            ("reviews_per_s", format_speed, "SPEED"),
            ("peak_bytes", format_bytes, "MEMORY"),
            ("train_s", lambda seconds: name_seconds(seconds).en, "TIME"),
            ("train_s", lambda seconds: name_seconds(seconds).zh, "TIME"),
        ):
            if model.get(key) is not None:
                for shown in (show(model[key]), escape(show(model[key]))):
                    text = re.sub(rf"^{re.escape(shown)}$", word, text, flags=re.MULTILINE)
    text = re.sub(rf"\b{machine['cores']}(\s+cores)", r"CORES\1", text)
    return text.replace(f"{machine['memory_gib']} GiB", "MEMORY GiB")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["report.md", "terminal.txt", "page.txt", "mistakes.txt"])
@pytest.mark.parametrize("kind", ["score", "generate"])
def test_every_word_of_the_report(
    kind: str, form: str, place: Workplace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The texts are in `expected`; SENTIFACTORY_WRITE_EXPECTED=1 writes them again, to be read in the diff."""
    monkeypatch.setattr(sys, "argv", ["sentifactory", "eval", "compare", "--and", "so on"])
    if kind == "score":
        report = run_everything(place)
    else:
        (place.folder / "base_model" / "run.json").write_text('{"status": "finished"}')
        build = compare.build_engine

        def build_half_deaf(*words: Any, name: str, **settings: Any) -> TfidfEngine:
            engine = build(*words, name=name, **settings)
            engine.__class__ = HalfDeaf if name == "base" else TfidfEngine
            return engine

        monkeypatch.setattr(compare, "build_engine", build_half_deaf)
        report = place.run(csv_path=str(place.folder / "other.csv"), mode="generate", max_samples=60)
    out = place.folder / "out"
    if form == "terminal.txt":
        capsys.readouterr()
        # Named before it is printed: the lines of a terminal break elsewhere when the folder's name is longer.
        print_report(json.loads(json.dumps(report).replace(str(place.folder), "FOLDER")))
        text = "".join(f"{line.rstrip()}\n" for line in capsys.readouterr().out.splitlines())
    elif form == "mistakes.txt":
        files = sorted((out / "report_mistakes").iterdir())
        text = "".join(f"== {file.name}\n{file.read_text(encoding='utf-8-sig')}" for file in files)
    elif form == "page.txt":
        text = read_words(place.page())
    else:
        text = (out / form).read_text(encoding="utf-8")
    compare_words(name_places(text, place, report), Path(__file__).parent / "expected" / f"{kind}_{form}")
