"""The fast decoder gives the loss and the gradients of the stock forward pass, or leaves a batch to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from random_steps import assert_same_step, build_batches, build_model, run_step

from sentifactory.training.acceleration.answer_logits import PROVEN_CLASSES, AnswerLogits
from sentifactory.training.acceleration.cache_storage import MemoryStorage
from sentifactory.training.acceleration.fast_decoder import FastDecoder
from sentifactory.training.acceleration.frozen_layer_cache import FrozenLayerCache

PREFIX = (7, 11, 13, 17, 19, 23)
LAYERS = 4


def build_alike(shared: int = len(PREFIX)) -> list[dict[str, Any]]:
    """Two batches of one accumulated step with the same prefix; one sample has no answer."""
    return build_batches(((19, 9, 14), (9, 21, 10)), ((3, 1, 0), (1, 8, 2)), width=24, prefix=PREFIX[:shared])


def freeze_lowest(model: Any, count: int) -> None:
    for name, parameter in model.named_parameters():
        is_low = any(f".layers.{index}." in name for index in range(count))
        parameter.requires_grad_(not (count and (is_low or "embed_tokens" in name or "lm_head" in name)))


def install(model: Any, frozen: int, prefix: tuple[int, ...] = PREFIX) -> FastDecoder:
    cache = FrozenLayerCache(MemoryStorage(10**8), model.config.hidden_size, model.dtype) if frozen else None
    return FastDecoder(model, AnswerLogits(model), prefix, frozen, cache)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", [PREFIX, ()], ids=["prefix", "no-prefix"])
@pytest.mark.parametrize("frozen", [0, 2, LAYERS])
@pytest.mark.parametrize("class_name", sorted(PROVEN_CLASSES))
def test_every_proven_class_keeps_loss_and_gradients(class_name: str, frozen: int, prefix: tuple[int, ...]) -> None:
    model = build_model(class_name, is_tied=not frozen, layers=LAYERS)
    freeze_lowest(model, frozen)
    batches = build_alike()
    stock, stock_mean = run_step(model, batches), run_step(model, batches, is_counted=False)
    fast = install(model, frozen, prefix)
    assert_same_step(stock, run_step(model, batches))
    assert_same_step(stock, run_step(model, batches))
    assert_same_step(stock_mean, run_step(model, batches, is_counted=False))
    assert (fast.fast_batches, fast.stock_batches) == (6, 0)
    if fast.cache is not None:
        assert (fast.cache.misses, fast.cache.hits) == (5, 13)  # a sample without an answer needs no states


@pytest.mark.parametrize("class_name", ["Gemma3ForCausalLM", "Qwen2ForCausalLM"])
def test_attention_written_in_python(class_name: str) -> None:
    model = build_model(class_name, layers=LAYERS, attn_implementation="eager")
    freeze_lowest(model, 2)
    batches = build_alike()
    stock = run_step(model, batches)
    fast = install(model, 2)
    for _ in range(2):
        assert_same_step(stock, run_step(model, batches))
    assert fast.fast_batches == 4


def test_window_cuts_into_the_prefix() -> None:
    """A sliding window of 4 tokens: most answers see no token of the prefix in the sliding layers."""
    model = build_model("Gemma3ForCausalLM", layers=7, sliding_window=4)
    freeze_lowest(model, 3)
    batches = build_alike()
    stock = run_step(model, batches)
    install(model, 3)
    assert_same_step(stock, run_step(model, batches))


@pytest.mark.parametrize("frozen", [0, 2])
@pytest.mark.parametrize("is_reentrant", [True, False])
def test_gradient_checkpointing(is_reentrant: bool, frozen: int) -> None:
    model = build_model("Gemma3ForCausalLM", layers=LAYERS)
    freeze_lowest(model, frozen)
    model.gradient_checkpointing_enable({"use_reentrant": is_reentrant})
    model.enable_input_require_grads()
    batches = build_alike()
    stock = run_step(model, batches)
    install(model, frozen)
    calls = []
    model.model.layers[2].mlp.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(2):
        assert_same_step(stock, run_step(model, batches))
    assert len(calls) == 2 * 2 * (2 + 2)  # two steps of two batches; prefix and rest, each computed twice


def test_lora_shares_the_prefix() -> None:
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(build_model("Qwen2ForCausalLM", layers=LAYERS), lora).train()
    batches = build_alike()
    stock = run_step(model, batches)
    fast = FastDecoder(model.get_base_model(), AnswerLogits(model), PREFIX, 0, None)
    assert_same_step(stock, run_step(model, batches))
    assert fast.fast_batches == 2


def test_known_and_new_samples_share_a_batch() -> None:
    import torch

    model = build_model("LlamaForCausalLM", layers=LAYERS)
    freeze_lowest(model, 2)
    batches = build_alike()
    mixed = [{key: torch.cat([value[1:], batches[1][key][:1]]) for key, value in batches[0].items()}]
    stock = run_step(model, mixed)
    fast = install(model, 2)
    run_step(model, batches[:1])
    assert fast.cache is not None
    fast.cache.hits = fast.cache.misses = 0
    assert_same_step(stock, run_step(model, mixed))
    assert (fast.cache.misses, fast.cache.hits) == (1, 2)


def test_cached_states_are_those_that_were_computed() -> None:
    """In bfloat16 too: the second epoch gives the same bits as the first."""
    import torch

    model = build_model("Qwen2ForCausalLM", layers=LAYERS).to(torch.bfloat16)
    freeze_lowest(model, 2)
    fast = install(model, 2)
    first, second = run_step(model, build_alike()), run_step(model, build_alike())
    assert first[0] == second[0]
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])
    assert fast.cache is not None
    assert fast.cache.hits > 0


def test_frozen_layers_run_once_per_sample_and_the_prefix_once_per_run() -> None:
    model = build_model("Qwen2ForCausalLM", layers=LAYERS)
    freeze_lowest(model, 2)
    install(model, 2)
    shapes: dict[int, list[tuple[int, ...]]] = {1: [], 2: [], 3: []}
    for index, seen in shapes.items():
        model.model.layers[index].mlp.register_forward_hook(
            lambda module, args, output, seen=seen: seen.append(tuple(output.shape[:2]))
        )
    for _ in range(2):
        run_step(model, build_alike())
    # A batch ends at its last predicting position (18 and 20 of 24), less the 6 of the prefix, rounded up to a
    # multiple of 8; one sample has no answer.
    assert shapes[1] == [(1, 6), (2, 16), (3, 16)]
    assert shapes[2] == [(1, 6), (3, 16), (1, 6), (3, 16)] * 2
    assert shapes[3] == [(3, 3), (3, 8)] * 2  # the last layer: answer positions alone


def _pad_left(batch: dict[str, Any]) -> None:
    for key in batch:
        batch[key] = batch[key].flip(1)


def _begin_otherwise(batch: dict[str, Any]) -> None:
    batch["input_ids"][1, 2] += 1


def _label_the_prefix(batch: dict[str, Any]) -> None:
    batch["labels"][0, 4] = batch["input_ids"][0, 4]


def _give_positions(batch: dict[str, Any]) -> None:
    import torch

    batch["position_ids"] = torch.arange(24).expand(3, -1).contiguous()


def _mask_the_middle(batch: dict[str, Any]) -> None:
    batch["attention_mask"][0, 3] = 0


def _ask_for_states(batch: dict[str, Any]) -> None:
    batch["output_hidden_states"] = True


@pytest.mark.parametrize(
    "change", [_pad_left, _begin_otherwise, _label_the_prefix, _give_positions, _mask_the_middle, _ask_for_states]
)
def test_other_batches_use_the_stock_pass(change: Callable[[dict[str, Any]], None]) -> None:
    model = build_model("Gemma3ForCausalLM", layers=LAYERS)
    freeze_lowest(model, 2)
    batches = build_alike()
    for batch in batches:
        change(batch)
    stock = run_step(model, batches)
    fast = install(model, 2)
    assert_same_step(stock, run_step(model, batches))
    assert (fast.fast_batches, fast.stock_batches) == (0, 2)


def test_evaluation_and_generation() -> None:
    import torch

    model = build_model("Gemma3ForCausalLM", layers=LAYERS).eval()
    batch = build_alike()[0]
    with torch.no_grad():
        stock = model(**batch)
        answer = model.generate(batch["input_ids"][:1, :9], max_new_tokens=4, do_sample=False)
        fast = install(model, 2)
        assert model(**batch).loss.item() == pytest.approx(stock.loss.item(), abs=1e-5)
        assert fast.fast_batches == 1
        del batch["labels"]
        assert torch.equal(model(**batch).logits, stock.logits)
        assert torch.equal(model.generate(batch["input_ids"][:1, :9], max_new_tokens=4, do_sample=False), answer)
        assert (fast.fast_batches, fast.stock_batches) == (1, 0)
