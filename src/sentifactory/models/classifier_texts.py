"""From texts to the token ids and batches that a text classifier takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Their positions begin behind the number of the padding token.
_SHIFTED_POSITIONS = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl")


def find_max_length(tokenizer: Any, config: Any) -> int:
    """Return how many tokens of a text the model sees: the tokenizer's limit, but not more than it has positions."""
    core = getattr(config, "trunk", config)
    positions = getattr(core, "max_position_embeddings", None) or 512
    if core.model_type in _SHIFTED_POSITIONS:
        positions -= (core.pad_token_id or 0) + 1
    return int(min(tokenizer.model_max_length, positions))


def encode_texts(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Return the token ids of each text with the tokenizer's own frame, cut at `max_length` tokens.

    A review is data: a token of control that a text spells out ("</s>", "[SEP]") becomes an unknown token.
    """
    if not texts:
        return []
    encoded = tokenizer(
        list(texts),
        truncation=True,
        max_length=max_length,
        split_special_tokens=True,
        return_special_tokens_mask=True,
        return_attention_mask=False,
    )
    control = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    return [
        [
            tokenizer.unk_token_id if not is_frame and token in control else token
            for token, is_frame in zip(*row, strict=True)
        ]
        for row in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
    ]


def pad_batch(tokenizer: Any, rows: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """Return token ids and mask (B, T) as tensors, padded on the right to the longest row."""
    import torch

    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), tokenizer.pad_token_id or 0)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    return ids, mask
