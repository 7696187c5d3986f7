"""Whose answers these are: the content of what answers, and neither its name nor its folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sentifactory.engines.model_identity import identify_engine, is_known_by_name
from sentifactory.metrics.calibration import Calibration
from sentifactory.models.weights import SETTING_FILES, identify_checkpoint
from sentifactory.task.task import BINARY_SENTIMENT


def write_folder(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True)
    for name, content in {"config.json": "{}", "model.safetensors": "weights", **files}.items():
        (folder / name).write_text(content)
    return folder


def test_the_folder_says_nothing_and_its_content_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = write_folder(tmp_path / "model")
    first = identify_checkpoint(folder)
    assert identify_checkpoint("~/model") == first
    assert identify_checkpoint(shutil.copytree(folder, tmp_path / "copy")) == first
    (folder / "run.json").write_text("{}")
    assert identify_checkpoint(folder) == first
    for name in ("model.safetensors", *SETTING_FILES):
        (folder / name).write_text(f"another {name}")
        assert identify_checkpoint(folder) != first, name
        first = identify_checkpoint(folder)


def test_an_adapter_is_nothing_without_its_base(tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base")
    config = json.dumps({"base_model_name_or_path": str(base)})
    adapter = write_folder(tmp_path / "adapter", **{"adapter_config.json": config})
    first = identify_checkpoint(adapter)
    (base / "model.safetensors").write_text("trained again")
    assert identify_checkpoint(adapter) != first


def test_engine_prompt_labels_calibration_and_mode_count(tmp_path: Path) -> None:
    model = str(write_folder(tmp_path / "model"))
    calibration = Calibration("temperature", 2.0, (0.0, 0.0), "t", "", None, 0.9, {}, {})
    task = BINARY_SENTIMENT
    found = [
        identify_engine("transformers", model, task, mode="score"),
        identify_engine("vllm", model, task, mode="score"),
        identify_engine("vllm", model, task, mode="generate"),
        identify_engine("vllm", model, task, mode="score", dtype="bfloat16"),
        identify_engine("vllm", model, task, calibration, mode="score"),
        identify_engine("vllm", model, task, replace(calibration, temperature=3.0), mode="score"),
        identify_engine("vllm", model, replace(task, prompt_template="{text}?"), mode="score"),
        identify_engine("vllm", model, replace(task, labels=("positive", "negative")), mode="score"),
        identify_engine("vllm", model, replace(task, answer_values=(1, 0)), mode="score"),
    ]
    assert len({json.dumps(one, sort_keys=True) for one in found}) == len(found)
    assert identify_engine("vllm", model, replace(task, name="renamed"), mode="score") == found[1]


def test_an_address_is_no_part_and_a_name_is_said_to_be_all_that_is_known(tmp_path: Path) -> None:
    one, other = (identify_engine(f"http://{host}:8000/v1", "org/m", BINARY_SENTIMENT) for host in ("a", "b"))
    assert one == other != identify_engine("http://a:8000/v1", "org/n", BINARY_SENTIMENT)
    assert is_known_by_name(one)
    folder = str(write_folder(tmp_path / "model"))
    assert not is_known_by_name(identify_engine("http://a:8000/v1", folder, BINARY_SENTIMENT))


def test_tfidf_is_its_training_reviews(tmp_path: Path) -> None:
    file, folder = tmp_path / "train.csv", tmp_path / "shards"
    folder.mkdir()
    found = []
    for text in ("text,label\na,1\n", "text,label\na,0\n"):
        file.write_text(text)
        (folder / "train-0.csv").write_text(text)
        found += [identify_engine("tfidf", str(place), BINARY_SENTIMENT) for place in (file, folder)]
    assert len({json.dumps(one, sort_keys=True) for one in found}) == 4
    assert not any(map(is_known_by_name, found))
