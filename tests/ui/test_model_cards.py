"""The card of a model, the reports that are found for it, and the dry run of publishing it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import build_tiny_bert

from sentifactory.corpus.prepare import prepare_reviews
from sentifactory.errors import ConfigError
from sentifactory.models.weights import hash_weights
from sentifactory.publishing.hub.evidence import SCHEMA_VERSION
from sentifactory.task.model_folder import write_model_task
from sentifactory.task.task import BINARY_SENTIMENT
from sentifactory.training.run.run_card import describe_data
from sentifactory.ui.actions import PageActions
from sentifactory.ui.model_actions import ModelActions
from sentifactory.ui.model_facts import describe_model
from sentifactory.ui.model_reports import find_reports
from sentifactory.ui.workspace import open_workspace


def write_report(folder: Path, weights: dict[str, str], created_at: str = "2030-01-02T00:00:00+00:00") -> Path:
    """Write what is read of a comparison, and a page beside it."""
    metrics = {"accuracy": 0.9, "accuracy_interval": {"low": 0.85, "high": 0.94}}
    content = {
        "schema_version": SCHEMA_VERSION, "created_at": created_at,
        "data": {"test": {"file": "/home/me/data/test.csv", "asked": 200}},
        "verdict": {"headline": {"en": "The tuned model wins.", "zh": "微调模型胜出。"}},
        "models": {"tuned": {"weights": weights, "metrics": metrics}, "base": {"weights": {}, "metrics": metrics}},
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "report.html").write_text('<html><head></head><input id="choose-en" checked></html>')
    (folder / "report.json").write_text(json.dumps(content))
    return folder / "report.json"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    build_tiny_bert(folder)
    write_model_task(BINARY_SENTIMENT, folder)
    return folder


def make_run(tmp_path: Path) -> dict[str, Any]:
    rows = [f"{at % 2},{'好' if at % 2 else '差'}的评论第{at}条{'很' * (at % 7)}{at * at}" for at in range(200)]
    (tmp_path / "shop.csv").write_text("label,text\n" + "\n".join(rows), encoding="utf-8")
    prepare_reviews(str(tmp_path / "shop.csv"), output_dir=tmp_path / "data", val_size=20, test_size=40)
    train = tmp_path / "data" / "shop" / "train.csv"
    return {
        "recipe": {"stage": "encoder", "finetuning_type": "head", "model_name_or_path": "/home/me/base-model",
                   "max_samples": 100, "dataset": str(train)},
        "data": describe_data({"dataset": str(train)}), "wall_time_s": 665.0, "device": "cuda:0", "steps": 32,
        "max_steps": 200, "finished_at": "2030-01-01T10:20:30+00:00", "memory": {"peak_rss_bytes": 7_758_782_464},
        "parameters": {"total": 234_656_384, "trainable": 22_294_528}, "leak_check": {"status": "clean"},
        "metrics": [{"step": 20, "eval_macro_f1": 0.875}], "status": "finished",
    }  # fmt: skip


def test_a_card_says_what_from_what_how_good_how_long_and_how_large(model: Path, tmp_path: Path) -> None:
    card = describe_model(model, make_run(tmp_path), [])
    values = {fact.title.en: fact.value for fact in card.facts}
    assert card.labels == ("negative", "positive")
    assert "base-model" in card.summary.en
    assert "/home" not in card.summary.en
    assert values["Training reviews"].en.startswith("100 / ")
    assert "shop" in values["Training reviews"].zh
    assert "负面" in values["Training reviews"].zh
    assert values["Training"].en == "32 of 200 steps on a GPU, finished 2030-01-01 10:20 UTC"
    assert values["Memory in training"].en == "7.76 GB"
    assert values["Weights"].zh == "2.35 亿，其中训练 2229 万"
    assert card.took is not None
    assert card.took.en == "11 min 5 s"
    assert card.validation is not None
    assert card.validation.shown == "87.5%"
    assert card.size.endswith("MB")


@pytest.mark.parametrize("run", [{}, {"recipe": None, "metrics": None, "data": None, "steps": None, "max_steps": 3}])
def test_a_run_card_without_figures_is_shown_without_them(run: dict[str, Any], model: Path) -> None:
    card = describe_model(model, run, [])
    assert card.took is None
    assert card.validation is None


def test_reports_are_found_by_the_weights_and_not_by_names(model: Path, tmp_path: Path) -> None:
    saves = tmp_path / "saves"
    write_report(saves / "old", hash_weights(model), "2029-01-01T00:00:00+00:00")
    write_report(saves / "new", hash_weights(model))
    write_report(saves / "other", {"model.safetensors": "0" * 64})
    (write_report(saves / "pageless", hash_weights(model)).with_suffix(".html")).unlink()
    (write_report(saves / "broken", hash_weights(model))).write_text('{"schema_version":')
    found = find_reports(model, {"saves": saves})
    assert list(found) == ["saves/new", "saves/old"]
    assert (found["saves/new"].tested_on, found["saves/new"].reviews) == ("test.csv", 200)
    (saves / "new" / "report.json").unlink()
    assert list(find_reports(model, {"saves": saves})) == ["saves/old"]


def test_only_the_reports_of_a_model_are_opened(model: Path, tmp_path: Path) -> None:
    actions = ModelActions(PageActions(open_workspace(tmp_path / "space"), (tmp_path / "models",), ()))
    write_report(tmp_path / "models" / "reports" / "one", hash_weights(model))
    assert "<iframe" in actions.show_report("models/mine", "models/reports/one", "zh")
    assert actions.show_report("models/mine", None) == ""
    for name in ("models/reports/two", "../report", str(tmp_path)):
        with pytest.raises(ConfigError) as caught:
            actions.show_report("models/mine", name)
        assert caught.value.code == "choice"


def test_a_dry_run_names_every_reason_not_to_publish(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    actions = ModelActions(PageActions(open_workspace(tmp_path / "space"), (tmp_path / "models",), ()))
    shown = actions.preview_publication("models/mine")
    assert shown.count("<li>") >= 2
    assert str(tmp_path) not in shown
