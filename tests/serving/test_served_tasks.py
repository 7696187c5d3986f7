"""What is served and labelled is asked what the model was taught: labels of answers, descriptions and journals."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny_models import build_tiny_bert

from sentifactory.cli import main
from sentifactory.errors import ConfigError
from sentifactory.serving.backends.model_loading import ModelChoice
from sentifactory.serving.http import run_service as running
from sentifactory.serving.http.api import build_app
from sentifactory.serving.http.prediction_service import PredictionService
from sentifactory.serving.http.run_service import ServeOptions, run_service
from sentifactory.serving.service_settings import Access
from sentifactory.task.model_folder import write_model_task
from sentifactory.task.task import BINARY_SENTIMENT, Task
from sentifactory.task.task_file import record_task


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory, three: Task) -> str:
    """A classifier of three labels with a random head; its folder says what it was taught."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    bare = build_tiny_bert(tmp_path_factory.mktemp("tiny_bert"))
    folder = tmp_path_factory.mktemp("encoder")
    labels = dict(enumerate(three.labels))
    AutoModelForSequenceClassification.from_pretrained(bare, id2label=labels).save_pretrained(folder)
    AutoTokenizer.from_pretrained(bare).save_pretrained(folder)
    write_model_task(three, folder)
    return str(folder)


def run(words: Sequence[object], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["sentifactory", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_a_file_is_labelled_with_the_labels_that_the_model_was_taught(
    encoder: str, three: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text\n" + "".join(f"房间很好{at}\n" for at in range(9)), encoding="utf-8")
    assert run(["label", source, out, "--model", encoder, "--task", "binary_sentiment"], monkeypatch) == 2
    assert not out.exists()
    assert run(["label", source, out, "--model", encoder, "--json"], monkeypatch) == 0
    told = capsys.readouterr()
    summary = json.loads(told.out)
    assert summary["task"] == {**record_task(three), "source": "model", "where": encoder}
    assert "Task: three_classes" in told.err
    with out.open(encoding="utf-8", newline="") as stream:
        assert {row["label"] for row in csv.DictReader(stream)} <= set(three.labels)


def test_the_service_describes_the_labels_of_its_model(
    encoder: str, three: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[PredictionService] = []

    def build(service: PredictionService, access: Access) -> None:
        served.append(service)

    monkeypatch.setattr(running, "build_app", build)
    monkeypatch.setattr(running, "run_server", lambda *words: None)
    run_service(ServeOptions(ModelChoice(encoder), access=Access(port=0)), lambda line: None)
    (service,) = served
    assert service.formatter.task == three
    schema = build_app(service, Access()).openapi()["components"]["schemas"]["Result"]
    assert schema["properties"]["label"]["enum"] == [*three.labels, None]
    with pytest.raises(ConfigError, match="classifier was trained for the task three_classes"):
        run_service(ServeOptions(ModelChoice(encoder), task="binary_sentiment"), lambda line: None)


def test_a_vllm_at_an_address_and_tfidf_are_asked_by_the_same_rule(model_folder: Path, three: Task) -> None:
    write_model_task(three, model_folder)
    choice = ModelChoice(str(model_folder), vllm_url="http://127.0.0.1:1")
    assert choice.find_task(None).task == three
    with pytest.raises(ConfigError, match="trained for the task three_classes"):
        choice.find_task("binary_sentiment")
    assert ModelChoice("some-name", vllm_url="http://127.0.0.1:1").find_task(None).task == BINARY_SENTIMENT
    reviews = model_folder / "reviews.csv"
    reviews.write_text("label,text\n2,好\n", encoding="utf-8")
    (model_folder / "manifest.json").write_text(json.dumps({"task": record_task(three)}), encoding="utf-8")
    assert ModelChoice(str(reviews)).find_task(None).task == three
