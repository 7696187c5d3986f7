"""An encoder goes up like a language model, and its ONNX export with the report on the checkpoint it was made of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_hub import FakeHub
from onnx_workshop import copy_graph
from publishing_workshop import Workshop

from sentifactory.engines.registry import build_engine
from sentifactory.errors import ConfigError
from sentifactory.models.hub import fetch_from_hub
from sentifactory.models.weights import hash_settings, hash_weights
from sentifactory.publishing.hub.publish import publish_model
from sentifactory.publishing.onnx import onnx_export
from sentifactory.publishing.onnx.onnx_export import ExportOptions, export_checkpoint
from sentifactory.records import Review
from sentifactory.task.task import BINARY_SENTIMENT

pytestmark = pytest.mark.slow

Change = Callable[[Path], None]


@pytest.fixture
def encoder(workshop: Workshop, checkpoint: Path) -> Path:
    """A tiny encoder in the place of the workshop's tuned model: with its run card, and the report about it."""
    folder = workshop.root / "saves" / "encoder"
    shutil.copytree(checkpoint, folder)
    card = json.loads((workshop.run / "run.json").read_text(encoding="utf-8"))
    card["recipe"]["model_name_or_path"] = "intfloat/multilingual-e5-small"
    (folder / "run.json").write_text(json.dumps(card), encoding="utf-8")
    report = workshop.read_report()
    report["models"]["tuned"] |= {"weights": hash_weights(folder), "settings": hash_settings(folder)}
    workshop.write_report(report)
    return folder


@pytest.fixture
def exported(
    workshop: Workshop, encoder: Path, val_csv: Path, float32_graph: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setattr(onnx_export, "write_graph", copy_graph(float32_graph))
    monkeypatch.setattr(onnx_export, "measure_export", lambda *_: {})
    folder = workshop.root / "saves" / "onnx"
    export_checkpoint(ExportOptions(str(encoder), folder, str(val_csv), quantise="none"))
    return folder


def test_an_encoder_with_a_head_of_our_own(workshop: Workshop, hub: FakeHub, encoder: Path) -> None:
    publish_model(workshop.options(folder=encoder))
    files = hub.repos["me/reviews"].files
    assert {"model.safetensors", "config.json", "tokenizer.json", "run.json"} <= set(files)
    card = files["README.md"].decode()
    assert "pipeline_tag: text-classification" in card
    assert "sentifactory predict" in card
    assert "library_name" not in card
    assert "from transformers import" not in card, "transformers does not know this head"


def test_an_export_is_published_by_the_report_on_its_checkpoint(
    workshop: Workshop, hub: FakeHub, exported: Path
) -> None:
    result = publish_model(workshop.options(folder=exported))
    files = hub.repos["me/reviews"].files
    assert {"model.onnx", "model.onnx.data", "tokenizer.json", "export.json", "config.json"} <= set(files)
    assert "sentifactory_export.json" not in files
    assert result["report"].endswith("report.json")
    assert "onnx, float32" in files["README.md"].decode()
    assert str(workshop.root).encode() not in files["export.json"]
    reviews = [Review("房间很干净，服务也好"), Review("太差了，再也不来")]
    answers = []
    for folder in (exported, fetch_from_hub("me/reviews")):
        with build_engine("auto", str(folder), BINARY_SENTIMENT, mode="score") as engine:
            answers.append([answer.probabilities for answer in engine.predict(reviews)])
    assert answers[0] == answers[1]


def allow_more_flips(folder: Path) -> None:
    facts = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    facts["parity"]["flip_share"] = 0.05
    (folder / "export.json").write_text(json.dumps(facts), encoding="utf-8")


def change_tokenizer(folder: Path) -> None:
    with (folder / "tokenizer.json").open("a", encoding="utf-8") as stream:
        stream.write(" ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (allow_more_flips, "there is no report on exactly this checkpoint"),
        (change_tokenizer, "tokenizer.json has changed since the export"),
        (lambda folder: (folder / "model.onnx.data").unlink(), "model.onnx.data is missing"),
    ],
)
def test_an_export_that_proves_nothing_is_refused(
    workshop: Workshop, hub: FakeHub, exported: Path, change: Change, words: str
) -> None:
    change(exported)
    with pytest.raises(ConfigError) as caught:
        publish_model(workshop.options(folder=exported))
    assert words in caught.value.what
    assert hub.requests == []
