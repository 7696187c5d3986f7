"""Merging an adapter and changing a dtype: the new folder says the same, carries its proof, or is not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_models import link_model

from sentifactory.engines.side_by_side import answer_side_by_side
from sentifactory.errors import ConfigError, EngineError
from sentifactory.models.notices import add_notice
from sentifactory.models.weights import hash_weights
from sentifactory.publishing.export import model_export
from sentifactory.publishing.export.model_export import DTYPE_LIMITS, ExportOptions, change_dtype, merge_adapter
from sentifactory.publishing.export.parity import ParityLimits
from sentifactory.publishing.hub.evidence import read_conversion
from sentifactory.records import Review
from sentifactory.task.model_folder import read_model_task, write_model_task
from sentifactory.task.task import BINARY_SENTIMENT, Task
from sentifactory.task.task_file import record_task


@pytest.fixture(scope="module")
def val_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("val") / "val.csv"
    rows = [f"{number % 2},第{number}条评论说得很清楚" for number in range(8)]
    path.write_text("label,text\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_qwen: Path) -> Path:
    """A LoRA adapter whose effect is large: a merge that loses it cannot pass."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_qwen), config)
    torch.manual_seed(0)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=3.0)
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        (folder / file).write_bytes((tiny_qwen / file).read_bytes())
    (folder / "run.json").write_text('{"status": "finished"}', encoding="utf-8")
    return folder


@pytest.mark.slow
def test_a_merged_adapter_says_the_same_and_brings_its_evidence(adapter: Path, val_path: str, tmp_path: Path) -> None:
    target = tmp_path / "merged"
    proof = merge_adapter(ExportOptions(adapter, target, "float32", val_path))
    assert proof["parity"]["flips"] == 0
    assert proof["parity"]["difference_max"] < 1e-4
    assert proof["source_weights"] == hash_weights(adapter)
    assert not (target / "adapter_config.json").exists()
    assert read_model_task(target) == BINARY_SENTIMENT
    assert json.loads((target / "run.json").read_text()) == {"status": "finished"}
    assert read_conversion(target, hash_weights(target)) == proof
    assert read_conversion(target, {"model.safetensors": "0"}) is None
    ((answer,),) = [row["answers"] for row in answer_side_by_side([Review("房间很干净")], [str(target)], None)]
    assert answer["label"] in BINARY_SENTIMENT.labels
    assert sum(answer["probabilities"].values()) == pytest.approx(1)


@pytest.mark.slow
def test_an_export_is_asked_and_carries_what_the_model_was_taught(
    tiny_qwen: Path, tmp_path: Path, three: Task
) -> None:
    model = link_model(tiny_qwen, tmp_path / "model")
    write_model_task(three, model)
    val = tmp_path / "val.csv"
    val.write_text("label,text\n0,差\n1,还行\n2,很好\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="trained for the task three_classes"):
        change_dtype(ExportOptions(model, tmp_path / "half", "float16", str(val), task="binary_sentiment"))
    proof = change_dtype(ExportOptions(model, tmp_path / "half", "float16", str(val)))
    assert read_model_task(tmp_path / "half") == three
    assert proof["task"] == {**record_task(three), "source": "model", "where": str(model)}


@pytest.mark.slow
def test_a_merge_that_loses_the_adapter_is_caught_and_leaves_nothing(
    adapter: Path, val_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.tuners.lora import LoraModel

    monkeypatch.setattr(LoraModel, "merge_and_unload", lambda model, **settings: model.unload())
    with pytest.raises(EngineError, match="answers differently from the checkpoint") as caught:
        merge_adapter(ExportOptions(adapter, tmp_path / "merged", "float32", val_path))
    assert "nothing was written" in caught.value.what
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_another_dtype_halves_the_weights_and_passes_within_its_tolerance(
    tiny_qwen: Path, val_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "half"
    proof = change_dtype(ExportOptions(tiny_qwen, target, "float16", val_path))
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tiny_qwen, target)]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.01)
    assert (target / "model.safetensors").stat().st_mode == (target / "config.json").stat().st_mode
    assert 0 < proof["parity"]["difference_max"] < 0.05
    assert json.loads((target / "config.json").read_text())["dtype"] == "float16"
    monkeypatch.setitem(DTYPE_LIMITS, "bfloat16", ParityLimits(0.0, 0.0))
    with pytest.raises(EngineError, match="answers differently from the checkpoint"):
        change_dtype(ExportOptions(tiny_qwen, target, "bfloat16", val_path))
    assert (target / "model.safetensors").stat().st_size == sizes[1]  # the one before stands as it was


def test_what_cannot_be_exported(tiny_qwen: Path, adapter: Path, val_path: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    (tmp_path / "notes").write_text("x")
    cases: list[tuple[Any, ExportOptions, str]] = [
        (change_dtype, ExportOptions(tiny_qwen, tiny_qwen, "float16", val_path), "would replace"),
        (change_dtype, ExportOptions(tiny_qwen, tmp_path / "mine", "float16", val_path), "not written by an export"),
        (change_dtype, ExportOptions(tiny_qwen, tmp_path / "notes", "float16", val_path), "not written by an export"),
        (change_dtype, ExportOptions(tiny_qwen, tmp_path / "x", "int3", val_path), "Unknown dtype 'int3'"),
        (change_dtype, ExportOptions(adapter, tmp_path / "x", "float16", val_path), "LoRA adapter, not a complete"),
        (merge_adapter, ExportOptions(tiny_qwen, tmp_path / "x", "float32", val_path), "not a LoRA adapter"),
        (change_dtype, ExportOptions(tmp_path / "none", tmp_path / "x", "float16", val_path), "folder does not exist"),
    ]
    classifier = tmp_path / "classifier"
    shutil.copytree(tiny_qwen, classifier)
    settings = json.loads((classifier / "config.json").read_text())
    (classifier / "config.json").write_text(
        json.dumps(settings | {"architectures": ["BertForSequenceClassification"]})
    )
    cases.append((change_dtype, ExportOptions(classifier, tmp_path / "x", "float16", val_path), "is a classifier"))
    for run, options, words in cases:
        with pytest.raises(ConfigError, match=words):
            run(options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classifier", "mine", "notes"]


def test_the_terms_of_the_model_that_one_was_tuned_from_travel_with_it(tmp_path: Path) -> None:
    base, source, place = tmp_path / "base", tmp_path / "a", tmp_path / "b"
    for folder in (base, source, place):
        folder.mkdir()
    (base / "NOTICE.txt").write_text("terms of the base")
    (source / "run.json").write_text(json.dumps({"recipe": {"model_name_or_path": str(base)}}))
    model_export.copy_evidence(source, place, BINARY_SENTIMENT, {"source_weights": {}, "weights": {}})
    assert (place / "NOTICE.txt").read_text() == "terms of the base"
    (source / "NOTICE.txt").write_text("terms of its own")
    (place / "NOTICE.txt").unlink()
    for _ in range(2):
        model_export.copy_evidence(source, place, BINARY_SENTIMENT, {"source_weights": {}, "weights": {}})
        terms = {path.name: path.read_text() for path in place.glob("NOTICE*")}
        assert terms == {"NOTICE.txt": "terms of its own", "NOTICE-2.txt": "terms of the base"}


def test_a_required_notice_is_added_unless_a_file_contains_it(tmp_path: Path) -> None:
    notice = "The model is provided under the terms at example.org"
    (tmp_path / "LICENSE").write_text("terms of its own")
    (tmp_path / "NOTICE").write_text("a notice of another kind")
    add_notice(tmp_path, notice)
    assert (tmp_path / "LICENSE").read_text() == "terms of its own"
    written = (tmp_path / "NOTICE").read_text()
    assert "a notice of another kind" in written
    assert notice in written
    add_notice(tmp_path, "The model is\nprovided under the terms at example.org")
    assert (tmp_path / "NOTICE").read_text() == written


def test_links_out_of_the_folder_are_not_copied_but_those_of_the_hub_cache_are(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("private")
    source, cached, place = tmp_path / "a", tmp_path / "hub" / "snapshots" / "c0ffee", tmp_path / "b"
    blobs = tmp_path / "hub" / "blobs"
    for folder in (source, cached, place, blobs):
        folder.mkdir(parents=True)
    (blobs / "terms").write_text("terms of the model")
    (blobs / "key").symlink_to(tmp_path / "key")
    (cached / "LICENSE").symlink_to(Path("../../blobs/terms"))
    (cached / "NOTICE").symlink_to(Path("../../blobs/key"))
    for name in ("LICENSE", "NOTICE.txt", "run.json"):
        (source / name).symlink_to(tmp_path / "key")
    for folder in (source, cached):
        model_export.copy_evidence(folder, place, BINARY_SENTIMENT, {"source_weights": {}, "weights": {}})
        assert all(path.read_text() != "private" for path in place.iterdir())
    assert (place / "LICENSE").read_text() == "terms of the model"


def test_a_calibration_is_bound_to_the_new_weights(tmp_path: Path) -> None:
    source, place = tmp_path / "a", tmp_path / "b"
    for folder in (source, place):
        folder.mkdir()
    (source / "calibration.json").write_text(json.dumps({"weights": {"m": "1"}, "temperature": 2.0}))
    model_export.copy_evidence(source, place, BINARY_SENTIMENT, {"source_weights": {"m": "1"}, "weights": {"m": "2"}})
    assert json.loads((place / "calibration.json").read_text()) == {"weights": {"m": "2"}, "temperature": 2.0}
