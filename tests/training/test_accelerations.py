"""Which accelerations are on, and the reasons reported for the others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from random_steps import build_model

from sentifactory.training.acceleration.accelerations import (
    ANSWER_LOGITS,
    FROZEN_LAYERS,
    LAST_LAYER,
    ROUNDED_PROJECTION,
    SHARED_PREFIX,
    Accelerations,
    count_frozen_layers,
    find_pass_obstacle_in_model,
    find_pass_obstacle_in_settings,
    find_pass_obstacle_in_trainer,
)


def make_dataset(*samples: list[int]) -> Any:
    from datasets import Dataset

    labels = [[-100] * (len(ids) - 2) + ids[-2:] for ids in samples]
    return Dataset.from_dict({"input_ids": list(samples), "labels": labels})


ALIKE = ([3, 4, 5, 6, 7, 8, 9, 10], [3, 4, 5, 6, 7, 11, 9, 10])
ONE_DEVICE = SimpleNamespace(world_size=1, n_gpu=0)


def install(
    model: Any, settings: dict[str, Any], *samples: list[int], limit_bytes: int = 10**8, args: Any = ONE_DEVICE
) -> dict[str, Any]:
    card: dict[str, Any] = {}
    accelerations = Accelerations(settings, card, limit_bytes, is_wanted=True)
    accelerations.install_answer_logits(model, args)
    accelerations.install_fast_decoder(model, args, make_dataset(*samples))
    accelerations.close()
    return {entry["name"]: (entry["is_on"], entry["note"]) for entry in card["accelerations"]}


def freeze(model: Any, *words: str) -> Any:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(word in name for word in words))
    return model


def test_everything_is_on_for_a_freeze_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    model = freeze(build_model("Qwen2ForCausalLM"), "embed_tokens", "layers.0.", "layers.1.")
    found = install(model, {"finetuning_type": "freeze"}, *ALIKE)
    assert {name: is_on for name, (is_on, _) in found.items()} == dict.fromkeys(
        (ANSWER_LOGITS, FROZEN_LAYERS, SHARED_PREFIX, LAST_LAYER), True
    )
    shown = capsys.readouterr().err
    assert "Acceleration on: frozen-trunk reuse (layers 0-1, 0 MiB in " in shown
    assert "Acceleration on: shared prefix (5 tokens)." in shown


def test_each_acceleration_can_be_off_by_itself() -> None:
    model = build_model("Qwen2ForCausalLM")
    found = install(model, {"finetuning_type": "full"}, *ALIKE)
    assert found[FROZEN_LAYERS] == (False, "the embeddings or the lowest layer are trainable")
    assert found[SHARED_PREFIX][0]
    model = freeze(build_model("Qwen2ForCausalLM"), "embed_tokens", "layers.0.")
    found = install(model, {"finetuning_type": "freeze"}, [3, 4, 5, 6, 7, 8], [9, 4, 5, 6, 7, 8])
    assert found[FROZEN_LAYERS][0]
    assert found[SHARED_PREFIX] == (False, "fewer than 4 tokens are the same in all")
    assert found[LAST_LAYER][0]


def test_no_space_for_a_cache() -> None:
    model = freeze(build_model("Qwen2ForCausalLM"), "embed_tokens", "layers.0.")
    found = install(model, {"finetuning_type": "freeze"}, *ALIKE, limit_bytes=0)
    assert found[FROZEN_LAYERS] == (False, "the limit is 0")
    assert found[SHARED_PREFIX][0]


def test_without_answer_only_logits_nothing_is_on() -> None:
    found = install(build_model("Qwen2ForCausalLM"), {"use_dft_loss": True}, *ALIKE)
    assert not any(is_on for is_on, _ in found.values())
    assert found[FROZEN_LAYERS][1] == "it needs answer-only logits"


def configure_deepspeed(**config: Any) -> dict[str, Any]:
    return {"deepspeed": "ds.json", "hf_deepspeed_config": SimpleNamespace(config=config)}


@pytest.mark.parametrize(
    ("args", "word"),
    [
        ({"fsdp": "full_shard"}, None),
        (configure_deepspeed(zero_optimization={"stage": 3}), None),
        (
            {"deepspeed": "z3.json", "hf_deepspeed_config": SimpleNamespace(config={"tensor_parallel": {"a": 1}})},
            "ten",
        ),
        ({"deepspeed": "z3.json"}, "inspected"),
        ({"parallelism_config": object()}, "parallelism_config"),
    ],
)
def test_split_weights(args: dict[str, Any], word: str | None) -> None:
    model = freeze(build_model("Qwen2ForCausalLM"), "layers.2.")
    found = install(model, {"bf16": True}, *ALIKE, args=SimpleNamespace(world_size=2, n_gpu=1, **args))
    is_on, note = found[ANSWER_LOGITS]
    assert is_on == (word is None)
    assert (word or "") in note
    assert ROUNDED_PROJECTION not in found  # a copy of split weights would be a copy of a part
    assert not found[SHARED_PREFIX][0]


def test_more_devices_and_unknown_data(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_dataset(*ALIKE)
    for args in (ONE_DEVICE, SimpleNamespace(world_size=2, n_gpu=1)):
        assert find_pass_obstacle_in_trainer(args, data) is None
    several_devices = SimpleNamespace(world_size=1, n_gpu=2)
    assert "several devices" in str(find_pass_obstacle_in_trainer(several_devices, data))
    sharded = SimpleNamespace(world_size=2, n_gpu=1, deepspeed="ds_z3.json")
    assert "DeepSpeed" in str(find_pass_obstacle_in_trainer(sharded, data))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert "FSDP" in str(find_pass_obstacle_in_trainer(ONE_DEVICE, data))
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    assert "cannot be inspected" in str(find_pass_obstacle_in_trainer(ONE_DEVICE, data.remove_columns("labels")))
    assert "cannot be inspected" in str(find_pass_obstacle_in_trainer(ONE_DEVICE, None))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"packing": True}, "packed"),
        ({"neat_packing": True}, "packed"),
        ({"streaming": True}, "streamed"),
        ({"neftune_noise_alpha": 5.0}, "noise"),
        ({"use_badam": True}, "BAdam"),
        ({"shift_attn": True}, "attention"),
        ({"stage": "pt"}, "pt"),
        ({"finetuning_type": "oft"}, "oft"),
    ],
)
def test_unsupported_settings(settings: dict[str, Any], word: str) -> None:
    assert word in str(find_pass_obstacle_in_settings(settings))


def test_supported_settings() -> None:
    assert find_pass_obstacle_in_settings({"stage": "sft", "finetuning_type": "freeze", "packing": False}) is None
    assert find_pass_obstacle_in_settings({}) is None


@pytest.mark.slow
def test_unsupported_models() -> None:
    from peft import LoraConfig, get_peft_model

    assert find_pass_obstacle_in_model(build_model("Gemma3ForCausalLM")) is None
    assert "dropout" in str(find_pass_obstacle_in_model(build_model("Qwen2ForCausalLM", attention_dropout=0.1)))
    for dropout, is_ruled_out in ((0.0, False), (0.1, True)):
        lora = LoraConfig(r=2, target_modules=["q_proj"], lora_dropout=dropout, task_type="CAUSAL_LM")
        model = get_peft_model(build_model("Qwen2ForCausalLM"), lora)
        assert (find_pass_obstacle_in_model(model) is not None) == is_ruled_out
    dynamic = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    model = build_model("LlamaForCausalLM", rope_parameters=dynamic)
    assert "position embeddings" in str(find_pass_obstacle_in_model(model))
    model = build_model("Gemma3ForCausalLM", use_bidirectional_attention=True)
    assert "bidirectional" in str(find_pass_obstacle_in_model(model))
    model = build_model("Qwen2ForCausalLM")
    model.config._attn_implementation = "flash_attention_2"
    assert "no explicit mask" in str(find_pass_obstacle_in_model(model))
    model = build_model("Qwen2ForCausalLM")
    model.hf_device_map = {"model.layers.0": 0, "model.layers.1": 1}
    assert "several devices" in str(find_pass_obstacle_in_model(model))
    model = build_model("Qwen2ForCausalLM")
    model.model.forward = model.model.forward
    assert "replaced" in str(find_pass_obstacle_in_model(model))


@pytest.mark.parametrize(
    ("frozen", "expected"),
    [
        (("embed_tokens", "layers.0.", "layers.1."), 2),
        (("embed_tokens", "layers.0.", "layers.2."), 1),  # one that trains in between
        (("layers.0.", "layers.1."), 0),  # the embeddings train
        (("embed_tokens", "layers.1."), 0),
        (("embed_tokens", "layers."), 3),
        ((), 0),
    ],
)
def test_counting_frozen_layers(frozen: tuple[str, ...], expected: int) -> None:
    assert count_frozen_layers(freeze(build_model("Qwen2ForCausalLM"), *frozen)) == expected


def test_tied_embeddings_that_train_as_the_head() -> None:
    model = freeze(build_model("Gemma3ForCausalLM", is_tied=True), "layers.0.", "layers.1.")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert count_frozen_layers(model) == 0
