"""The command to copy after `sentifactory label`: it works as printed."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from fake_openai_server import Behaviour, serve_fake
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.serving.labelling.label_options import LabelRequest
from sentifactory.serving.labelling.next_look import suggest_after_labelling
from sentifactory.task.task import BINARY_SENTIMENT, Task
from sentifactory.task.task_choice import ChosenTask

URL, OTHER_URL = "http://a:1", "http://b:1"
OWN = Task("own", ("cold", "hot"), "temperature", (0, 1), "冷还是热？{text}")


def suggest(request: LabelRequest, task: ChosenTask | None = None) -> list[str] | None:
    """The words after the text of the review."""
    chosen = task or ChosenTask(BINARY_SENTIMENT, "default")
    line = suggest_after_labelling(request, {"counts": {"bad_rows": 2, "unsure": 1}, "task": chosen.to_json()})
    return None if line is None else shlex.split(line)[3:]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "base", "vllm_urls": (URL,)}, ["--model", "base", "--engine", URL]),
        ({"model": "base", "engine": URL}, ["--model", "base", "--engine", URL]),
        (
            {"model": "base", "engine": "ray", "vllm_urls": (URL, OTHER_URL), "replicas": 2},
            ["--model", "base", "--engine", URL],
        ),
        ({"model": "m", "engine": "ray", "replica_engine": "onnx"}, ["--model", "m", "--engine", "onnx"]),
        ({"model": "m", "engine": "ray"}, ["--model", "m"]),
        ({"model": "m", "engine": "vllm"}, ["--model", "m", "--engine", "vllm"]),
        ({"model": "m"}, ["--model", "m"]),
        ({"model": "t.csv"}, ["--train_csv", "t.csv"]),
        ({"model": "t.csv", "engine": "tfidf"}, ["--train_csv", "t.csv"]),
        ({"model": "t", "engine": "ray", "replica_engine": "tfidf"}, ["--train_csv", "t"]),
    ],
)
def test_without_labels_the_same_model_is_asked(settings: dict, words: list[str]) -> None:
    assert suggest(LabelRequest("in.csv", "out.csv", **settings)) == [*words, "--task", "binary_sentiment"]


def test_no_other_task_is_asked() -> None:
    request = LabelRequest("in.csv", "out.csv", "base", vllm_urls=(URL,))
    assert suggest(request, ChosenTask(OWN, "data", "manifest.json")) is None
    assert suggest(request, ChosenTask(OWN, "model", "base")) == ["--model", "base", "--engine", URL]


def test_the_command_after_an_empty_file_answers(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\n", encoding="utf-8")
    words = [str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), "--model", "base"]
    with serve_fake(Behaviour()) as url:
        done = CliRunner().invoke(build_app(), ["label", *words, "--vllm_url", url])
        assert done.exit_code == 0, done.output
        line = done.stdout.splitlines()[-1].removeprefix("Next: ")
        answered = CliRunner().invoke(build_app(), [*shlex.split(line)[1:], "--json"])
    assert answered.exit_code == 0, answered.output
    assert json.loads(answered.stdout)[0]["answers"][0]["label"] in BINARY_SENTIMENT.labels
