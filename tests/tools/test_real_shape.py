"""The bench of the real shape: its configuration, a run of two steps on a tiny model, and the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.benches import qwen_shape
from tools.benches.real_shape import STEPS, summarise_card, train_two_steps, write_table


@pytest.mark.slow
def test_the_shape_has_the_weights_of_the_model() -> None:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with torch.device("meta"):
        model = Qwen2ForCausalLM(Qwen2Config(**qwen_shape._SIZES))
    assert sum(value.numel() for value in model.parameters()) == qwen_shape.PARAMETERS
    tokens = qwen_shape.build_qwen_tokenizer()
    assert tokens.token_to_id("<|im_end|>") == qwen_shape.IM_END_ID
    assert tokens.get_vocab_size() == 151_665


@pytest.mark.slow
def test_two_steps_are_held_against_their_estimate(
    tiny_qwen: Path, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repo_root)
    card = train_two_steps("freeze", tiny_qwen, tmp_path, "freeze_trainable_layers=2")
    assert (card["status"], card["steps"]) == ("finished", STEPS)
    found = summarise_card(card)
    assert found["off"] == pytest.approx(found["estimated_bytes"] / found["peak_bytes"] - 1)
    assert len(found["accelerations"]) >= 4
    report = {"machine": {"processor": "P", "cores": 2}, "precision": "bf16", "recipes": {"freeze": found}}
    report["vllm"] = {"ready_s": 70.0, "asked": 4, "answered": 4}
    table = write_table(report).splitlines()
    assert table[2].startswith("| freeze | 0 | ")
    assert table[-1] == "vLLM: ready after 70 s, 4 of 4 answered."
