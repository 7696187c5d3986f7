"""Random models of a few layers, and one training step on them as the trainer computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

VOCABULARY = 211


def build_model(class_name: str, *, is_tied: bool = False, layers: int = 3, **options: Any) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    config_name = class_name.replace("ForCausalLM", "TextConfig" if class_name.startswith("Gemma3") else "Config")
    sizes = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": layers,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": is_tied,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    if class_name.startswith(("Gemma2", "Gemma3")):
        sizes |= {"final_logit_softcapping": 5.0, "sliding_window": 8}
    config = getattr(transformers, config_name)(**sizes | options)
    model = getattr(transformers, class_name)(config)
    with torch.no_grad():  # larger weights: with the initial ones every token is about equally likely
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return model.train()


def build_batches(
    lengths: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], width: int, prefix: Sequence[int] = ()
) -> list[dict[str, Any]]:
    """Return batches of random token ids, padded on the right.

    Args:
        lengths: of the samples, by batch.
        answers: how many tokens at the end of each sample are its answer; 0: it has none.
        width: of every batch.
        prefix: ids with which every sample begins; they occur nowhere else.
    """
    import torch

    generator = torch.Generator().manual_seed(1)
    batches = []
    for sizes, ends in zip(lengths, answers, strict=True):
        ids = torch.zeros(len(sizes), width, dtype=torch.long)
        labels = torch.full_like(ids, -100)
        mask = torch.zeros_like(ids)
        for row, (length, answer) in enumerate(zip(sizes, ends, strict=True)):
            ids[row, :length] = torch.randint(30, VOCABULARY, (length,), generator=generator)
            ids[row, : len(prefix)] = torch.tensor(prefix, dtype=torch.long)
            mask[row, :length] = 1
            if answer:
                labels[row, length - answer : length] = ids[row, length - answer : length]
        batches.append({"input_ids": ids, "attention_mask": mask, "labels": labels})
    return batches


def run_step(model: Any, batches: list[Any], *, is_counted: bool = True) -> tuple[float, dict[str, Any]]:
    """Return the summed loss and the gradients of one accumulated step, as the trainer computes them."""
    model.zero_grad(set_to_none=True)
    count = sum((batch["labels"] != -100).sum() for batch in batches)
    total = 0.0
    for batch in batches:
        loss = model(**batch, **({"num_items_in_batch": count} if is_counted else {})).loss
        loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_step(stock: tuple[float, dict[str, Any]], ours: tuple[float, dict[str, Any]]) -> None:
    import torch

    (stock_loss, stock_grads), (our_loss, our_grads) = stock, ours
    assert our_loss == pytest.approx(stock_loss, abs=1e-5)
    assert our_grads.keys() == stock_grads.keys()
    assert stock_grads
    for name, expected in stock_grads.items():
        assert torch.linalg.norm(our_grads[name] - expected) <= 1e-4 * torch.linalg.norm(expected) + 1e-9, name
