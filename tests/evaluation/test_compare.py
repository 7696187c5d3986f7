"""The flow from a CSV file to report and page, with engines that answer what the test tells them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scripted_comparison import BASE_REPLIES, HOSTILE, TEST_ROWS, TUNED_REPLIES, Workplace, write_reviews

from sentifactory.corpus.manifest import hash_file
from sentifactory.errors import ConfigError, DataError, EngineError, LeakError
from sentifactory.evaluation import compare, report
from sentifactory.evaluation.console import print_report
from sentifactory.evaluation.report import SCHEMA_VERSION
from sentifactory.model_task import write_model_task
from sentifactory.records import Prediction
from sentifactory.task import BINARY_SENTIMENT, Task
from sentifactory.task_files import load_task, record_task

TRAIN_ROWS = [(1, f"很满意，第{i}次来") for i in range(12)] + [(0, f"很失望，第{i}天走") for i in range(12)]


def list_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_figures_of_a_hand_worked_comparison(workplace: Workplace) -> None:
    """True 1 0 1 0 1 0; base says 0 0 - - 1 -; tuned says 1 1 1 0 1 0."""
    result = workplace.run()
    base, tuned = (result["models"][side]["metrics"] for side in ("base", "tuned"))
    assert (base["correct"], base["unparsed"], base["coverage"]) == (2, 3, 0.5)
    assert base["confusion"] == ((1, 0, 2), (1, 1, 1))
    assert (tuned["correct"], tuned["coverage"]) == (5, 1.0)
    assert tuned["precision"] == pytest.approx(3 / 4)
    test = result["paired_tests"]["tuned_vs_base"]
    assert (test["fixed"], test["broken"], test["p_value"]) == (4, 1, 0.375)  # 2 * (1 + 5) / 2^5
    assert result["models"]["majority"]["metrics"]["accuracy"] == 0.5
    assert result["verdict"]["winner"] == "tuned"


def test_one_engine_ends_before_the_next_begins(workplace: Workplace) -> None:
    workplace.run()
    assert workplace.journal == ["base begins", "base ends", "tuned begins", "tuned ends"]


def test_the_report_holds_every_prediction_and_reads_back_as_it_was(workplace: Workplace) -> None:
    (workplace.folder / "tuned_model" / "run.json").write_text('{"status": "finished", "seed": 7}')
    result = workplace.run()
    again = workplace.read()
    assert again == json.loads(json.dumps(result))
    assert next(iter(again)) == "warnings"
    assert again["schema_version"] == SCHEMA_VERSION
    assert [(row["label"], row["text"]) for row in again["predictions"]] == TEST_ROWS
    assert [row["base"]["raw"] for row in again["predictions"]] == BASE_REPLIES
    assert [row["tuned"]["raw"] for row in again["predictions"]] == TUNED_REPLIES
    assert [row["base"]["label"] for row in again["predictions"]] == [0, 0, None, None, 1, None]
    assert again["predictions"][2]["source"] == {"file": str(workplace.folder / "test.csv"), "line": 4}
    assert again["predictions"][0]["tuned"]["latency_s"] == 0.25
    assert again["data"]["test"]["sha256"] == hash_file(workplace.folder / "test.csv")
    assert again["models"]["tuned"]["run_card"] == {"status": "finished", "seed": 7}
    assert again["models"]["base"]["weights"] == {
        "model.safetensors": hash_file(workplace.folder / "base_model" / "model.safetensors")
    }
    assert again["settings"]["max_new_tokens"] == 16
    assert again["versions"]["sentifactory"]
    assert again["command"]


def test_max_samples_keeps_the_class_shares_and_is_told(workplace: Workplace) -> None:
    write_reviews(
        workplace.folder / "test.csv", [(1, f"好{i}") for i in range(60)] + [(0, f"差{i}") for i in range(30)]
    )
    workplace.replies = {"base": ['{"sentiment": 1}'] * 9, "tuned": ['{"sentiment": 1}'] * 9}
    result = workplace.run(max_samples=9, seed=3)
    facts = result["data"]["test"]
    assert facts["asked_labels"] == {"negative": 3, "positive": 6}
    assert (facts["asked"], facts["reviews"]) == (9, 90)
    assert "class shares" in facts["sampling"]
    assert len(result["predictions"]) == 9


def test_tfidf_stands_beside_the_models(workplace: Workplace) -> None:
    write_reviews(workplace.folder / "train.csv", [*TRAIN_ROWS, (1, "never seen by TF-IDF")])
    result = workplace.run(train_csv=str(workplace.folder / "train.csv"), train_samples=24)
    assert list(result["models"]) == ["majority", "base", "tuned", "tfidf"]
    assert result["data"]["train"]["reviews"] == 25
    assert result["data"]["train"]["used_by_tfidf"] == 24
    shares = result["predictions"][0]["tfidf"]["probabilities"]
    assert sum(shares) == pytest.approx(1)
    assert "tfidf_vs_tuned" in result["paired_tests"]
    assert result["models"]["majority"]["model"] == "always negative"  # a tie in training: the lower index


def test_test_reviews_that_training_has_seen_are_refused(workplace: Workplace) -> None:
    write_reviews(workplace.folder / "train.csv", [*TRAIN_ROWS, (1, "房间 很干净！")])
    with pytest.raises(
        LeakError, match=r"1 of the 6 test reviews stand among the 25 training .*line 2 repeats .*line 26"
    ):
        workplace.run(train_csv=str(workplace.folder / "train.csv"))
    assert not (workplace.folder / "out").exists()
    assert workplace.journal == []


def test_an_allowed_overlap_is_the_first_thing_the_report_says(
    workplace: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    write_reviews(workplace.folder / "train.csv", [*TRAIN_ROWS, (1, "房间 很干净！")])
    result = workplace.run(train_csv=str(workplace.folder / "train.csv"), allow_leaks=True)
    first_lines = (workplace.folder / "out" / "report.json").read_text(encoding="utf-8")[:200]
    assert "1 of the 6 test reviews stand in the training reviews too" in first_lines
    page = workplace.page()
    assert page.index("stand in the training reviews too") < page.index("<h1>")
    assert "也出现在训练集的评论中" in page
    capsys.readouterr()
    print_report(result)
    assert capsys.readouterr().out.startswith("WARNING: 1 of the 6 test reviews")


def test_an_engine_that_fails_leaves_no_report(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    build = compare.build_engine

    def fail(kind: str, model: str, task: Any, *, name: str, **settings: Any) -> Any:
        if name == "tuned":
            raise EngineError("The server ended", where=model)
        return build(kind, model, task, name=name, **settings)

    monkeypatch.setattr(compare, "build_engine", fail)
    before = list_files(workplace.folder)
    with pytest.raises(EngineError, match="The server ended"):
        workplace.run()
    assert workplace.journal == ["base begins", "base ends"]
    left = list_files(workplace.folder) - before  # what continues, and nothing that looks like a result or is empty
    assert left == {"out/report.predictions.base.jsonl"}


def test_an_engine_that_loses_answers_is_noticed(workplace: Workplace) -> None:
    workplace.replies["tuned"] = TUNED_REPLIES[:-1]
    with pytest.raises(EngineError, match="5 answers to 6 reviews"):
        workplace.run()
    assert workplace.journal[-1] == "tuned ends"
    assert not (workplace.folder / "out" / "report.json").exists()


def test_a_fault_while_drawing_leaves_no_report(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr("sentifactory.evaluation.page.render_page", fail)
    with pytest.raises(ZeroDivisionError):
        workplace.run()
    assert not list((workplace.folder / "out").glob("report.[jh]*"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_samples": 0}, "--max_samples is 0"),
        ({"max_samples": -3}, "--max_samples is -3"),
        ({"max_new_tokens": 0}, "--max_new_tokens is 0"),
        ({"task": "nonsense"}, "There is no task 'nonsense'"),
        ({"engine": "nonsense"}, "There is no engine 'nonsense'"),
        ({"mode": "nonsense"}, "There is no mode 'nonsense'"),
        ({"train_samples": 5}, "--train_samples needs --train_csv"),
        ({"output_file": "report.txt"}, "ends in .json"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_starts(
    workplace: Workplace, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        workplace.run(**changes)
    assert workplace.journal == []


def test_an_address_for_each_side(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str]] = []
    build = compare.build_engine

    def note(kind: str, model: str, task: Any, *, name: str, **settings: Any) -> Any:
        asked.append((name, kind, model))
        return build(kind, model, task, name=name, **settings)

    monkeypatch.setattr(compare, "build_engine", note)
    result = workplace.run(
        engine="http://a:1/v1", tuned_url="http://b:2/v1", base_model="gemma", finetuned_model="gemma-tuned"
    )
    assert asked == [("base", "http://a:1/v1", "gemma"), ("tuned", "http://b:2/v1", "gemma-tuned")]
    assert result["models"]["tuned"]["engine"] == "http://b:2/v1"


def test_predictions_with_probabilities_keep_them() -> None:
    row = report._describe_prediction(Prediction(1, (0.25, 0.75), "x", 0.1))
    assert row == {"label": 1, "raw": "x", "latency_s": 0.1, "probabilities": [0.25, 0.75]}


def test_the_table_shows_figures_matrices_and_verdict(
    workplace: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    result = workplace.run()
    capsys.readouterr()
    print_report(result)
    table = " ".join(capsys.readouterr().out.split())
    for words in ["Accuracy", "33.3%", "83.3%", "+50.0", "unparsed", "4 fixed, 1 broken", "p = 0.38"]:
        assert words in table, words
    assert result["verdict"]["headline"]["en"] in table


def test_the_page_is_closed_to_hostile_reviews_and_replies(workplace: Workplace) -> None:
    workplace.run()
    page = workplace.page()
    assert "<script" not in page.lower()
    assert "<img" not in page.lower()
    assert "&lt;script&gt;alert" in page
    assert "{{ 7*7 }}" in page  # shown, not computed
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert HOSTILE in [row["text"] for row in workplace.read()["predictions"]]


def write_three(workplace: Workplace, three: Task, *, sides: tuple[str, ...] = ("tuned_model",)) -> list[str]:
    """Three-class reviews with their manifest, and models that were taught so; return the right replies."""
    write_reviews(workplace.folder / "test.csv", [(at % 3, f"第{at}条评论") for at in range(9)])
    (workplace.folder / "manifest.json").write_text(json.dumps({"task": record_task(three)}), encoding="utf-8")
    for side in sides:
        write_model_task(three, workplace.folder / side)
    right = [three.render_answer(at % 3) for at in range(9)]
    workplace.replies = {"base": right[::-1], "tuned": right}
    return right


@pytest.fixture
def three(repo_root: Path) -> Task:
    return load_task(repo_root / "examples" / "tasks" / "three_classes.yaml")


def test_both_sides_are_asked_what_the_tuned_model_was_taught(
    workplace: Workplace, three: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    write_three(workplace, three)
    result = workplace.run()
    tuned = str(workplace.folder / "tuned_model")
    assert result["task"] == {**record_task(three), "source": "model", "where": tuned}
    assert result["models"]["tuned"]["metrics"]["correct"] == 9
    assert "three_classes" in capsys.readouterr().err
    (workplace.folder / "tuned_model" / "sentifactory_task.json").unlink()
    workplace.journal.clear()
    again = workplace.run()
    assert (again["task"]["source"], again["task"]["labels"]) == ("data", list(three.labels))


def test_sides_that_were_taught_differently_are_refused_without_a_task(
    workplace: Workplace, three: Task, repo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_three(workplace, three)
    write_model_task(BINARY_SENTIMENT, workplace.folder / "base_model")
    with pytest.raises(ConfigError, match=r"different tasks.*--task"):
        workplace.run()
    with pytest.raises(ConfigError, match="labelled for the task three_classes"):
        workplace.run(task="binary_sentiment")
    assert workplace.journal == []
    result = workplace.run(task=str(repo_root / "examples" / "tasks" / "three_classes.yaml"))
    assert str(workplace.folder / "base_model") in result["warnings"][0]["en"]
    assert "base_model" in workplace.page()
    assert f"WARNING: {workplace.folder / 'base_model'}" in capsys.readouterr().err


def test_labels_of_another_task_are_no_bad_rows(workplace: Workplace, three: Task) -> None:
    write_reviews(workplace.folder / "test.csv", [(min(at % 40, 2), f"第{at}条评论") for at in range(300)][38:])
    with pytest.raises(DataError) as caught:
        workplace.run()
    assert "'2' (" in caught.value.what
    assert "binary_sentiment" in caught.value.what
    assert "--task" in caught.value.next_step
    assert "remove" not in caught.value.describe()
