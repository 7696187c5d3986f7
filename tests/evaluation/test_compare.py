"""From a CSV file to report and page, with scripted engines."""

from __future__ import annotations

import csv
import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from scripted_comparison import BASE_REPLIES, HOSTILE, TEST_ROWS, TUNED_REPLIES, Workplace, write_reviews

from sentifactory.errors import ConfigError, DataError, EngineError, LeakError
from sentifactory.evaluation import compare
from sentifactory.evaluation.report import report
from sentifactory.evaluation.report.report import SCHEMA_VERSION, summarise_report
from sentifactory.evaluation.report.report_console import print_report
from sentifactory.evaluation.report.report_page import group_unparsed
from sentifactory.publishing.hub.model_card import strip_predictions
from sentifactory.records import Prediction
from sentifactory.system.fingerprint import hash_file
from sentifactory.task.model_folder import write_model_task
from sentifactory.task.task import BINARY_SENTIMENT, Task
from sentifactory.task.task_file import record_task

SCHEMA = json.loads(
    resources.files("sentifactory.evaluation.report").joinpath("report_schema.json").read_text("utf-8")
)
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
    assert again["predictions"][2]["source"] == {"file": "test.csv", "line": 4}
    assert again["predictions"][0]["tuned"]["latency_s"] == 0.25
    assert again["data"]["test"]["sha256"] == hash_file(workplace.folder / "test.csv")
    files = [file for file in (workplace.folder / "out").rglob("*") if file.is_file()]
    assert len(files) == 8
    for file in files:
        assert str(workplace.folder) not in file.read_text(encoding="utf-8"), file
    assert again["models"]["tuned"]["run_card"] == {"status": "finished", "seed": 7}
    assert again["models"]["base"]["weights"] == {
        "model.safetensors": hash_file(workplace.folder / "base_model" / "model.safetensors")
    }
    assert again["settings"]["max_new_tokens"] == 16
    assert again["versions"]["sentifactory"]
    assert again["command"]


def test_max_samples_keeps_the_class_shares_and_is_reported(workplace: Workplace) -> None:
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


def test_tfidf_is_compared_with_the_models(workplace: Workplace) -> None:
    write_reviews(workplace.folder / "train.csv", [*TRAIN_ROWS, (1, "never seen by TF-IDF")])
    result = workplace.run(train_csv=str(workplace.folder / "train.csv"), train_samples=24)
    assert list(result["models"]) == ["majority", "base", "tuned", "tfidf", "tfidf_all"]
    assert [result["models"][name]["model"].split()[-2] for name in ("tfidf", "tfidf_all")] == ["24", "25"]
    assert result["paired_tests"]["tfidf_all_vs_tuned"]["reviews"] == 6
    assert result["settings"]["train_samples"] == 24
    assert result["data"]["train"]["reviews"] == 25
    assert result["data"]["train"]["used_by_tfidf"] == 24
    shares = result["predictions"][0]["tfidf"]["probabilities"]
    assert sum(shares) == pytest.approx(1)
    assert "tfidf_vs_tuned" in result["paired_tests"]
    assert result["models"]["majority"]["model"] == "always negative"  # a tie in training: the lower index


def test_test_reviews_that_training_has_seen_are_refused(workplace: Workplace) -> None:
    write_reviews(workplace.folder / "train.csv", [*TRAIN_ROWS, (1, "房间 很干净！")])
    with pytest.raises(
        LeakError, match=r"1 of the 6 test reviews are among the 25 training .*line 2 duplicates .*line 26"
    ):
        workplace.run(train_csv=str(workplace.folder / "train.csv"))
    assert not (workplace.folder / "out").exists()
    assert workplace.journal == []


def test_the_report_begins_with_an_allowed_overlap(workplace: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    write_reviews(workplace.folder / "train.csv", [*TRAIN_ROWS, (1, "房间 很干净！")])
    result = workplace.run(train_csv=str(workplace.folder / "train.csv"), allow_leaks=True)
    first_lines = (workplace.folder / "out" / "report.json").read_text(encoding="utf-8")[:200]
    assert "1 of the 6 test reviews are also among the training reviews" in first_lines
    page = workplace.page()
    assert page.index("are also among the training reviews") < page.index("<h1>")
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

    monkeypatch.setattr("sentifactory.evaluation.report.report_page.render_page", fail)
    with pytest.raises(ZeroDivisionError):
        workplace.run()
    assert not list((workplace.folder / "out").glob("report.[jh]*"))


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"max_samples": 0}, "option-value", "--max_samples"),
        ({"max_samples": -3}, "option-value", "--max_samples"),
        ({"max_new_tokens": 0}, "option-value", "--max_new_tokens"),
        ({"task": "nonsense"}, "task-unknown", "'nonsense'"),
        ({"engine": "nonsense"}, None, "Unknown engine 'nonsense'"),
        ({"mode": "nonsense"}, None, "Unknown mode 'nonsense'"),
        ({"train_samples": 5}, "option-missing", "--train_csv"),
        ({"shots": 2}, "option-missing", "--train_csv"),
        ({"shots": -1}, "option-value", "--shots"),
        ({"written_samples": 0, "mode": "score"}, "option-value", "--written_samples"),
        ({"written_samples": 2}, "option-value", "--written_samples"),
        ({"output_file": "report.txt"}, "output-name", "report.txt"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_starts(
    workplace: Workplace, changes: dict[str, Any], code: str | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        workplace.run(**changes)
    assert code in (None, caught.value.code)
    assert workplace.journal == []


def test_base_gets_examples_and_tuned_writes(workplace: Workplace) -> None:
    """The scripted replies stand for scored answers; tuned then writes to 4 reviews, of which one is unreadable."""
    train = write_reviews(workplace.folder / "train.csv", TRAIN_ROWS)
    workplace.replies |= {"few_shot": TUNED_REPLIES, "written": [*TUNED_REPLIES[:3], "好的"]}
    result = workplace.run(train_csv=str(train), mode="score", shots=2, written_samples=4)
    assert workplace.journal == [
        f"{name} {what}" for name in ("base", "few_shot", "tuned", "written") for what in ("begins", "ends")
    ]
    assert list(result["models"]) == ["majority", "base", "few_shot", "tuned", "tfidf"]
    assert result["models"]["few_shot"]["metrics"]["correct"] == 5
    assert result["paired_tests"]["tuned_vs_few_shot"]["difference"] == 0
    written = result["written"]
    assert (written["reviews"], written["unparsed"]) == (4, 1)
    rows = [reply["row"] for reply in written["replies"]]
    labels = [reply["label"] for reply in written["replies"]]
    assert labels == [1, 1, 1, None]
    scored = [result["predictions"][row]["tuned"]["label"] for row in rows]
    assert written["agreeing"] == sum(label == other for label, other in zip(labels, scored, strict=True))
    assert written["correct"] == sum(TEST_ROWS[row][0] == label for row, label in zip(rows, labels, strict=True))
    assert (result["settings"]["shots"], result["settings"]["written_samples"]) == (2, 4)
    scored_right = sum(TEST_ROWS[row][0] == label for row, label in zip(rows, scored, strict=True))
    assert written["scored_correct"] == scored_right
    assert "Asked to write" in workplace.page()
    assert group_unparsed(result)[0] == {"name": "written", "count": 1, "replies": [("好的", 1)]}
    with (workplace.folder / "out" / "report_mistakes" / "unparsed.csv").open(encoding="utf-8") as stream:
        assert [row["reply"] for row in csv.DictReader(stream) if row["model"] == "written"] == ["好的"]
    assert not list((workplace.folder / "out").glob("*.jsonl"))
    assert list(Draft202012Validator(SCHEMA).iter_errors(json.loads(json.dumps(result)))) == []


def test_examples_are_training_reviews_that_the_model_saw_and_the_page_shows(workplace: Workplace) -> None:
    seen, unseen = TRAIN_ROWS[10:14], [(1, "后来才到的评论"), (0, "另一条后到的评论")]
    train = write_reviews(workplace.folder / "train.csv", [*seen, *unseen])
    workplace.replies |= {"few_shot": TUNED_REPLIES}
    result = workplace.run(train_csv=str(train), train_samples=4, mode="score", shots=2)
    prompt = result["models"]["few_shot"]["prompt_template"]
    assert all(text in prompt for _, text in seen)
    assert not any(text in prompt for _, text in (*unseen, *TEST_ROWS))
    assert prompt.endswith(result["task"]["prompt_template"])
    assert seen[0][1] in workplace.page()
    (about,) = [one["en"] for one in result["verdict"]["details"] if "examples" in one["en"]]
    assert "83.3%" in about
    assert "0.0 points" in about


def test_what_quotes_reviews_is_not_published(workplace: Workplace) -> None:
    train = write_reviews(workplace.folder / "train.csv", TRAIN_ROWS)
    workplace.replies |= {"few_shot": TUNED_REPLIES, "written": TUNED_REPLIES[:2]}
    result = workplace.run(train_csv=str(train), mode="score", shots=2, written_samples=2)
    published = strip_predictions(result)
    assert published is not None
    assert published["written"]["reviews"] == summarise_report(result)["written"]["reviews"] == 2
    assert "replies" not in published["written"]
    assert "replies" not in summarise_report(result)["written"]
    assert not any(text in json.dumps(published, ensure_ascii=False) for _, text in TRAIN_ROWS)
    assert result["written"]["replies"], "the report itself keeps them"


def test_few_shot_is_for_language_models(workplace: Workplace) -> None:
    config = '{"architectures": ["BertForSequenceClassification"], "model_type": "bert"}'
    (workplace.folder / "base_model" / "config.json").write_text(config)
    train = write_reviews(workplace.folder / "train.csv", TRAIN_ROWS)
    with pytest.raises(ConfigError) as caught:
        workplace.run(train_csv=str(train), mode="score", shots=2, engine="auto")
    assert caught.value.code == "option-value"
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


def test_a_password_in_an_address_is_in_no_file(workplace: Workplace, tmp_path: Path) -> None:
    workplace.run(engine="http://me:s3cr3t@a:1/v1", base_model="gemma", finetuned_model="gemma-tuned")
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".html" for path in written)
    assert [path for path in written if b"s3cr3t" in path.read_bytes()] == []


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
    """Three-class reviews with their manifest, and models trained for their task; return the right replies."""
    write_reviews(workplace.folder / "test.csv", [(at % 3, f"第{at}条评论") for at in range(9)])
    (workplace.folder / "manifest.json").write_text(json.dumps({"task": record_task(three)}), encoding="utf-8")
    for side in sides:
        write_model_task(three, workplace.folder / side)
    right = [three.render_answer(at % 3) for at in range(9)]
    workplace.replies = {"base": right[::-1], "tuned": right}
    return right


def test_both_models_are_asked_the_task_of_the_tuned_model(
    workplace: Workplace, three: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    write_three(workplace, three)
    result = workplace.run()
    assert result["task"] == {**record_task(three), "source": "model", "where": "tuned_model"}
    assert result["models"]["tuned"]["metrics"]["correct"] == 9
    assert "three_classes" in capsys.readouterr().err
    (workplace.folder / "tuned_model" / "sentifactory_task.json").unlink()
    workplace.journal.clear()
    again = workplace.run()
    assert (again["task"]["source"], again["task"]["labels"]) == ("data", list(three.labels))


def test_models_of_different_tasks_are_refused_without_a_task(
    workplace: Workplace, three: Task, three_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_three(workplace, three)
    write_model_task(BINARY_SENTIMENT, workplace.folder / "base_model")
    with pytest.raises(ConfigError, match=r"different tasks.*--task"):
        workplace.run()
    with pytest.raises(ConfigError, match="labelled for the task three_classes"):
        workplace.run(task="binary_sentiment")
    assert workplace.journal == []
    result = workplace.run(task=three_file)
    assert result["warnings"][0]["en"].startswith("base_model was trained for another task")
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
