"""No command writes over what it reads: each is called with an output that is one of its inputs, by whatever name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.errors import ConfigError

ROWS = "text,label\n" + "".join(
    f"{word}{number},{label}\n" for number in range(30) for word, label in (("房间很好", 1), ("再也不来", 0))
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path) -> Path:
    """A folder with reviews, a model, a second name for each, and something in the way."""
    for name in ("train.csv", "test.csv", "other.csv"):
        (tmp_path / name).write_text(ROWS, encoding="utf-8")
    (tmp_path / "test.json").write_text('[{"text": "好", "label": 1}]', encoding="utf-8")
    (tmp_path / "pool.jsonl").write_text('{"text": "好"}\n', encoding="utf-8")
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "model_link").symlink_to(model_folder)
    (tmp_path / "link.csv").symlink_to(tmp_path / "train.csv")
    (tmp_path / "report_mistakes").mkdir()
    (tmp_path / "report_mistakes" / "thesis.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hash_all(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(
    "words",
    [
        "data check --train train.csv --test test.csv --unseen ./train.csv",
        "data check --train train.csv --test test.csv --unseen link.csv",
        "distill --teacher model --engine encoder --input_file pool.jsonl --output_file ./pool.jsonl",
        "distill --teacher model --engine encoder --input_file pool.jsonl --output_file manifest.jsonl",
        "eval compare --csv_path test.json --base_model model --finetuned_model model --output_file ./test.json",
        "eval compare --csv_path test.csv --base_model model --finetuned_model model --output_file model/config.json",
        "eval compare --csv_path test.csv --base_model model --finetuned_model model --output_file report.json",
        "eval ladder --csv_path test.csv --train_csv train.csv --output_file model/config.json",
        "label test.csv ./test.csv --model train.csv --engine tfidf --overwrite",
        "label test.csv train.csv --model train.csv --engine tfidf --overwrite",
        "label test.csv link.csv --model train.csv --engine tfidf --overwrite",
        "export dtype model --output_dir model_link --dtype float16 --val_path test.csv",
        "export dtype model --output_dir . --dtype float16 --val_path test.csv",
        "export onnx model --output_dir model_link --val_path test.csv",
    ],
)
def test_an_output_that_is_an_input_ends_the_command_before_anything_is_written(place: Path, words: str) -> None:
    before = hash_all(place)
    result = CliRunner().invoke(build_app(), words.split())
    assert isinstance(result.exception, ConfigError), result.output
    assert result.exception.exit_code == 2
    assert hash_all(place) == before


def test_data_are_not_prepared_over_their_own_source(place: Path) -> None:
    first = CliRunner().invoke(build_app(), ["data", "prepare", "train.csv", "--name", "own", "--output_dir", "data"])
    assert first.exit_code == 0, first.output
    (place / "data_link").symlink_to(place / "data")
    before = hash_all(place)
    for source in ("data/own/train.csv", "data_link/own/test.csv"):
        result = CliRunner().invoke(build_app(), ["data", "prepare", source, "--name", "own", "--output_dir", "data"])
        assert isinstance(result.exception, ConfigError), result.output
        assert result.exception.where == "--name"
    assert hash_all(place) == before
