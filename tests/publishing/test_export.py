"""Merging an adapter and changing a dtype: the new folder says the same, carries its proof, or is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sentifactory.engines.side_by_side import answer_side_by_side
from sentifactory.errors import ConfigError, EngineError
from sentifactory.model_task import read_model_task
from sentifactory.models.weights import hash_weights
from sentifactory.publishing import export
from sentifactory.publishing.evidence import read_export
from sentifactory.publishing.export import ExportOptions, change_dtype, merge_adapter
from sentifactory.publishing.parity import TOLERANCES, Tolerance, compare_predictions
from sentifactory.records import Prediction, Review
from sentifactory.task import BINARY_SENTIMENT


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


def test_a_merged_adapter_says_the_same_and_brings_its_evidence(adapter: Path, val_path: str, tmp_path: Path) -> None:
    target = tmp_path / "merged"
    proof = merge_adapter(ExportOptions(adapter, target, "float32", val_path))
    assert proof["parity"]["changed_labels"] == 0
    assert proof["parity"]["max_change"] < 1e-4
    assert proof["source_weights"] == hash_weights(adapter)
    assert not (target / "adapter_config.json").exists()
    assert read_model_task(target) == BINARY_SENTIMENT
    assert json.loads((target / "run.json").read_text()) == {"status": "finished"}
    assert read_export(target, hash_weights(target)) == proof
    assert read_export(target, {"model.safetensors": "0"}) is None
    ((answer,),) = [row["answers"] for row in answer_side_by_side([Review("房间很干净")], [str(target)], None)]
    assert answer["label"] in BINARY_SENTIMENT.labels
    assert sum(answer["probabilities"].values()) == pytest.approx(1)


def test_a_merge_that_loses_the_adapter_is_caught_and_leaves_nothing(
    adapter: Path, val_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.tuners.lora import LoraModel

    monkeypatch.setattr(LoraModel, "merge_and_unload", lambda model, **settings: model.unload())
    with pytest.raises(EngineError, match="does not say the same") as caught:
        merge_adapter(ExportOptions(adapter, tmp_path / "merged", "float32", val_path))
    assert "nothing was written" in caught.value.next_step
    assert list(tmp_path.iterdir()) == []


def test_another_dtype_halves_the_weights_and_passes_within_its_tolerance(
    tiny_qwen: Path, val_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "half"
    proof = change_dtype(ExportOptions(tiny_qwen, target, "float16", val_path))
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tiny_qwen, target)]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.01)
    assert 0 < proof["parity"]["max_change"] < 0.05
    assert json.loads((target / "config.json").read_text())["dtype"] == "float16"
    monkeypatch.setitem(TOLERANCES, "bfloat16", Tolerance(0.0, 0.0, 0.0))
    with pytest.raises(EngineError, match="does not say the same"):
        change_dtype(ExportOptions(tiny_qwen, target, "bfloat16", val_path))
    assert (target / "model.safetensors").stat().st_size == sizes[1]  # the one before stands as it was


def test_what_cannot_be_exported(tiny_qwen: Path, adapter: Path, val_path: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    cases: list[tuple[Any, ExportOptions, str]] = [
        (change_dtype, ExportOptions(tiny_qwen, tiny_qwen, "float16", val_path), "is the old one"),
        (change_dtype, ExportOptions(tiny_qwen, tmp_path / "mine", "float16", val_path), "no export made"),
        (change_dtype, ExportOptions(tiny_qwen, tmp_path / "x", "int3", val_path), "no dtype 'int3'"),
        (change_dtype, ExportOptions(adapter, tmp_path / "x", "float16", val_path), "LoRA adapter, not a whole"),
        (merge_adapter, ExportOptions(tiny_qwen, tmp_path / "x", "float32", val_path), "no LoRA adapter"),
        (change_dtype, ExportOptions(tmp_path / "none", tmp_path / "x", "float16", val_path), "no such model folder"),
    ]
    for run, options, words in cases:
        with pytest.raises(ConfigError, match=words):
            run(options)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_calibration_is_bound_to_the_new_weights(tmp_path: Path) -> None:
    source, place = tmp_path / "a", tmp_path / "b"
    for folder in (source, place):
        folder.mkdir()
    (source / "calibration.json").write_text(json.dumps({"weights": {"m": "1"}, "temperature": 2.0}))
    export._carry_evidence(source, place, BINARY_SENTIMENT, {"source_weights": {"m": "1"}, "weights": {"m": "2"}})
    assert json.loads((place / "calibration.json").read_text()) == {"weights": {"m": "2"}, "temperature": 2.0}


@pytest.mark.parametrize(
    ("after", "changed", "passes"),
    [((0.2, 0.8), 0, True), ((0.2004, 0.7996), 0, False), ((0.6, 0.4), 1, False)],
)
def test_the_gate_looks_at_answers_and_probabilities(after: tuple[float, float], changed: int, passes: bool) -> None:
    label = int(after[1] > after[0])
    parity = compare_predictions([Review("x", 1)], [Prediction(1, (0.2, 0.8))], [Prediction(label, after)])
    assert parity.changed_labels == changed
    assert parity.passes(TOLERANCES["float32"]) is passes
    assert (parity.accuracy_before, parity.accuracy_after) == (1.0, float(label == 1))


def test_probabilities_that_are_no_numbers_do_not_pass() -> None:
    broken = [Prediction(1, (float("nan"), float("nan")))]
    with pytest.raises(EngineError, match="no numbers"):
        compare_predictions([Review("x", 1)], broken, broken)


def test_two_models_that_are_wrong_about_different_reviews_do_not_pass() -> None:
    reviews = [Review("x", 1), Review("y", 1)]
    one, two = Prediction(1, (0.4, 0.6)), Prediction(0, (0.6, 0.4))
    parity = compare_predictions(reviews, [one, two], [two, one])
    assert parity.accuracy_before == parity.accuracy_after
    assert parity.changed_labels == 2
