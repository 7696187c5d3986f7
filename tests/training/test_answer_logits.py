"""The answer-only projection gives the loss and the gradients of the stock model, and is off where it would not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from random_steps import VOCABULARY, assert_same_step, build_batches, build_model, run_step

from sentifactory.training.acceleration.answer_logits import (
    PROVEN_CLASSES,
    AnswerLogits,
    find_obstacle_in_model,
    find_obstacle_in_settings,
)


def build_two_batches() -> list[dict[str, Any]]:
    """Two batches of one accumulated step, one sample without any label."""
    return build_batches(((14, 9, 12), (7, 11, 5)), ((3, 1, 0), (2, 8, 4)), width=16)


@pytest.mark.parametrize("is_tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("class_name", sorted(PROVEN_CLASSES))
def test_every_proven_class_keeps_loss_and_gradients(class_name: str, is_tied: bool) -> None:
    model = build_model(class_name, is_tied=is_tied)
    batches = build_two_batches()
    stock = run_step(model, batches)
    stock_mean = run_step(model, batches, is_counted=False)
    assert find_obstacle_in_model(model) is None
    hooks = AnswerLogits(model)
    assert_same_step(stock, run_step(model, batches))
    assert_same_step(stock_mean, run_step(model, batches, is_counted=False))
    hooks.remove()
    assert_same_step(stock, run_step(model, batches))


@pytest.mark.parametrize("is_reentrant", [True, False])
def test_gradient_checkpointing_with_frozen_layers(is_reentrant: bool) -> None:
    model = build_model("Gemma3ForCausalLM", is_tied=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".2." in name)
    model.gradient_checkpointing_enable({"use_reentrant": is_reentrant})
    model.enable_input_require_grads()
    batches = build_two_batches()
    stock = run_step(model, batches)
    AnswerLogits(model)
    assert_same_step(stock, run_step(model, batches))
    assert set(stock[1]) == {name for name, _ in model.named_parameters() if ".2." in name}


def test_peft_wrapped_model() -> None:
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(build_model("Qwen2ForCausalLM"), lora).train()
    batches = build_two_batches()
    stock = run_step(model, batches)
    assert find_obstacle_in_model(model) is None
    AnswerLogits(model)
    assert_same_step(stock, run_step(model, batches))
    assert all("lora" in name for name in stock[1])


def test_only_answer_positions_reach_the_projection() -> None:
    model = build_model("LlamaForCausalLM")
    seen = []
    model.lm_head.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[:2].numel()))
    batch = build_two_batches()[0]
    model(**batch)
    AnswerLogits(model)
    model(**batch)
    assert seen == [3 * 16, 16]  # 4 labels and 12 idle rows


def test_a_batch_without_labels_and_a_row_of_width_one() -> None:
    import torch

    model = build_model("Qwen2ForCausalLM")
    AnswerLogits(model)
    batch = build_two_batches()[0]
    batch["labels"] = torch.full_like(batch["labels"], -100)
    assert model(**batch, num_items_in_batch=torch.tensor(4)).loss.item() == 0.0
    assert model(input_ids=torch.tensor([[5]]), labels=torch.tensor([[5]]), num_items_in_batch=1).loss.item() == 0.0


def test_packed_labels_are_known_by_their_shape() -> None:
    import torch

    model = build_model("LlamaForCausalLM")
    AnswerLogits(model)
    ids = torch.arange(5, 21).unsqueeze(0)  # (1, 16), and 3 labels packed into 16 rows would have the same shape
    assert model(input_ids=ids, labels=torch.where(ids > 17, ids, -100)).logits.shape[:2] == (1, 32)


def test_label_on_the_first_and_last_token() -> None:
    """`train_on_prompt` labels every token, and a packed sample begins with a label."""
    model = build_model("Qwen2ForCausalLM")
    batches = build_two_batches()
    for batch in batches:
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    stock = run_step(model, batches)
    AnswerLogits(model)
    assert_same_step(stock, run_step(model, batches))


def test_evaluation_keeps_every_logit_where_a_metric_needs_it() -> None:
    import torch

    batch = build_two_batches()[0]
    model = build_model("Gemma3ForCausalLM").eval()
    with torch.no_grad():
        stock = model(**batch)
        hooks = AnswerLogits(model, in_evaluation=False)
        assert torch.equal(model(**batch).logits, stock.logits)
        hooks.remove()
        AnswerLogits(model)
        assert model(**batch).loss.item() == pytest.approx(stock.loss.item(), abs=1e-5)
        assert model(**batch).logits.shape[1] == 16
        assert model(input_ids=batch["input_ids"]).logits.shape == stock.logits.shape


def test_calls_without_labels_are_untouched_after_a_failed_call() -> None:
    import torch

    model = build_model("Qwen2ForCausalLM").eval()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        AnswerLogits(model)
        with pytest.raises(IndexError):
            model(input_ids=torch.tensor([[5, VOCABULARY + 9]]), labels=torch.tensor([[-100, 6]]))
        assert torch.equal(model(input_ids=ids).logits, expected)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"use_dft_loss": True}, "DFT"),
        ({"use_asft_loss": True}, "ASFT"),
        ({"use_eaft_loss": True}, "EAFT"),
        ({"label_smoothing_factor": 0.1}, "smoothing"),
        ({"enable_liger_kernel": True}, "Liger"),
        ({"use_unsloth": True}, "Unsloth"),
        ({"stage": "dpo"}, "dpo"),
        ({"torch_compile": True}, "compile"),
    ],
)
def test_other_losses_disable_it(settings: dict[str, object], word: str) -> None:
    reason = find_obstacle_in_settings(settings)
    assert reason is not None
    assert word in reason


def test_supported_settings() -> None:
    assert find_obstacle_in_settings({"stage": "sft", "use_dft_loss": False, "label_smoothing_factor": 0.0}) is None


def test_unknown_models_disable_it() -> None:
    from peft import PromptTuningConfig, get_peft_model
    from torch import nn

    model = build_model("Qwen2ForCausalLM")
    prompt = get_peft_model(copy.deepcopy(model), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    assert "virtual tokens" in str(find_obstacle_in_model(prompt))
    model.forward = model.forward
    assert "replaced" in str(find_obstacle_in_model(model))
    del model.forward
    model.loss_function = lambda **kwargs: None
    assert "loss function" in str(find_obstacle_in_model(model))
    del model._loss_function
    assert find_obstacle_in_model(model) is None
    model.lm_head = nn.Sequential(model.lm_head)
    assert "plain linear" in str(find_obstacle_in_model(model))

    class Qwen9ForCausalLM(type(model)):  # type: ignore[misc]
        pass

    model.__class__ = Qwen9ForCausalLM
    assert "Qwen9ForCausalLM" in str(find_obstacle_in_model(model))
