"""The command to copy after a training: it names the reviews next to the training data, and the whole base model."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from sentifactory.models.weights import ADAPTER_CONFIG
from sentifactory.training.run.next_comparison import suggest_comparison


def make_data(folder: Path, n_val: int = 50) -> Path:
    folder.mkdir(parents=True)
    for name in ("train.csv", "val.csv", "test.csv", "train.jsonl"):
        (folder / name).write_text("")
    parts = {"train": {"rows": 500}, "val": {"rows": n_val}, "test": {"rows": 100}}
    manifest = {"parts": parts, "outputs": {"train.jsonl": {}}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder / "train.jsonl"


def read_options(command: str) -> dict[str, str]:
    words = shlex.split(command)
    return {word: value for word, value in zip(words, [*words[1:], ""], strict=True) if word.startswith("--")}


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENTIFACTORY_VLLM_PYTHON", "/nowhere/python")


def make_card(data: Path, **recipe: Any) -> dict[str, Any]:
    return {"recipe": {"model_name_or_path": "base", **recipe}, "data": [{"file": str(data.absolute())}]}


def test_a_language_model_is_compared_with_its_whole_base(tmp_path: Path) -> None:
    data = make_data(Path("my data"))
    for name, record in (("whole", None), ("cut", {"source": {"name": "whole"}})):
        Path("pretrained", name).mkdir(parents=True)
        if record is not None:
            Path("pretrained", name, "sentifactory_cut.json").write_text(json.dumps(record))
    card = make_card(data, model_name_or_path="pretrained/cut", max_samples=300)
    assert read_options(suggest_comparison(card, "saves/mine")) == {
        "--mode": "score",
        "--csv_path": "my data/test.csv",
        "--train_csv": "my data/train.csv",
        "--train_samples": "300",
        "--val_path": "my data/val.csv",
        "--base_model": "pretrained/whole",
        "--finetuned_model": "saves/mine",
        "--engine": "transformers",
    }


def test_too_few_validation_reviews_are_not_named() -> None:
    options = read_options(suggest_comparison(make_card(make_data(Path("few"), n_val=4)), "mine"))
    assert "--val_path" not in options
    assert "--train_samples" not in options


def test_an_encoder_goes_to_the_ladder_and_an_adapter_is_merged_first() -> None:
    card = make_card(make_data(Path("d")), stage="encoder")
    ladder = suggest_comparison(card, "mine")
    assert shlex.split(ladder)[1:3] == ["eval", "ladder"]
    assert read_options(ladder)["--encoder_model"] == "mine"
    Path("adapter").mkdir()
    Path("adapter", ADAPTER_CONFIG).write_text("{}")
    card["recipe"]["stage"] = "sft"
    assert shlex.split(suggest_comparison(card, "adapter"))[1:4] == ["export", "merge", "adapter"]


def test_without_test_reviews_the_model_is_tried() -> None:
    data = Path("own.jsonl")
    data.write_text("{}")
    assert shlex.split(suggest_comparison(make_card(data), "mine"))[1] == "predict"
