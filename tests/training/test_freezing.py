"""Which parameters a freeze recipe names."""

from __future__ import annotations

from typing import Any

import pytest

from sentifactory.training.llamafactory.freezing import FreezePlan, correct_trainable, is_named, read_plan
from sentifactory.training.run.run_card import summarise_trainable


def freeze(**settings: Any) -> dict[str, Any]:
    return {"finetuning_type": "freeze", **settings}


@pytest.mark.parametrize(
    ("settings", "layers"),
    [
        (freeze(freeze_trainable_layers=2), {4, 5}),
        (freeze(), {4, 5}),
        (freeze(freeze_trainable_layers=9), {0, 1, 2, 3, 4, 5}),
        (freeze(freeze_trainable_layers=-2), {0, 1}),
        (freeze(freeze_trainable_layers=2, use_llama_pro=True), {2, 5}),
    ],
)
def test_layers_are_counted_as_llamafactory_counts(settings: dict[str, Any], layers: set[int]) -> None:
    plan = read_plan(settings, 6)
    assert plan is not None
    assert plan.layers == layers


def test_other_methods_have_no_plan() -> None:
    assert read_plan({"finetuning_type": "lora"}, 6) is None
    assert read_plan({}, 6) is None


def test_names_are_exact() -> None:
    plan = FreezePlan(frozenset({1, 12}), ("self_attn",), ("norm", "embed_tokens"))
    named = [
        "model.layers.1.self_attn.q_proj.weight",
        "model.layers.12.self_attn.o_proj.bias",
        "model.norm.weight",
        "model.embed_tokens.weight",
    ]
    lookalikes = [
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.11.self_attn.q_proj.weight",
        "model.layers.2.self_attn.q_proj.weight",
        "model.layers.2.input_layernorm.weight",
        "model.layers.3.mlp.experts.12.self_attn.weight",
        "model.layers.3.norm.weight",
        "model.rotary.norm_extra.weight",
        "lm_head.weight",
    ]
    assert [name for name in named + lookalikes if is_named(name, plan, "model.layers")] == named


@pytest.fixture
def mixture() -> Any:
    """A mixture-of-experts model: LLaMA-Factory takes expert 1 of layer 0 for layer 1."""
    import torch
    from torch import nn

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
            self.input_layernorm = nn.LayerNorm(2)

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed_tokens = nn.Embedding(4, 2)
            self.layers = nn.ModuleList([Layer(), Layer(), Layer()])
            self.norm = nn.LayerNorm(2)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = Decoder()
            self.config = type("Config", (), {"num_hidden_layers": 3})()

    return Model().to(torch.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize("extra", [None, "norm"])
def test_accidentally_unfrozen_parameters_are_frozen_again(mixture: Any, extra: str | None) -> None:
    import torch
    from llamafactory.hparams import FinetuningArguments
    from llamafactory.model.adapter import _setup_freeze_tuning

    settings = freeze(freeze_trainable_layers=2, freeze_extra_modules=extra)
    _setup_freeze_tuning(mixture, FinetuningArguments(**settings), True, True)
    freed = {name for name, value in mixture.named_parameters() if value.requires_grad}
    assert "model.layers.0.experts.1.weight" in freed
    assert ("model.layers.0.input_layernorm.weight" in freed) == (extra == "norm")

    line = correct_trainable(mixture, settings)
    trained = {name for name, value in mixture.named_parameters() if value.requires_grad}
    everything = {name for name, _ in mixture.named_parameters()}
    prefixes = ("model.layers.1.", "model.layers.2.") + (("model.norm.",) if extra else ())
    assert trained == {name for name in everything if name.startswith(prefixes)}
    assert line is not None
    assert "layers 1-2" in line
    assert ("model.norm" in line) == (extra == "norm")
    types = {name: value.dtype for name, value in mixture.named_parameters()}
    assert all((types[name] == torch.float32) == (name in trained) for name in types)
    assert correct_trainable(mixture, settings) is None


def test_short_forms() -> None:
    shapes = [(f"model.layers.{layer}.mlp.{part}", 2, layer > 8) for layer in range(11) for part in "ab"]
    summary = summarise_trainable([*shapes, ("model.norm.weight", 5, True)])
    assert summary == {
        "trainable": 13,
        "total": 49,
        "tensors": 5,
        "names": ["model.layers.9.*", "model.layers.10.*", "model.norm.weight"],
    }
