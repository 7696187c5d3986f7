"""Encodes texts into padded batches of token ids, with the package tokenizers and numpy only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


class TextEncoder:
    """Encodes texts like `models.classifiers.encode_texts`, without transformers.

    Args:
        file: a tokenizer.json.
        facts: `max_length` in tokens, `pad_id`, `unk_id`, and `control_ids`, the special tokens that texts cannot
            contain.
    """

    def __init__(self, file: Path, facts: Mapping[str, Any]) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(file))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(int(facts["max_length"]))
        self._tokenizer.encode_special_tokens = True
        self._pad_id = int(facts["pad_id"])
        self._unk_id = facts["unk_id"]
        self._control = frozenset(facts["control_ids"])

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text with the tokenizer's special tokens, truncated to `max_length`."""
        return [
            [
                self._unk_id if not is_frame and token in self._control else token
                for token, is_frame in zip(row.ids, row.special_tokens_mask, strict=True)
            ]
            for row in self._tokenizer.encode_batch(list(texts))
        ]

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Return token ids and mask (B, T), padded on the right to the longest row."""
        import numpy as np

        shape = (len(rows), max(map(len, rows)))
        ids, mask = np.full(shape, self._pad_id, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
            mask[place, : len(row)] = 1
        return ids, mask


def split_by_tokens(rows: Sequence[Sequence[int]], max_tokens: int) -> Iterator[list[int]]:
    """Yield positions in batches of similar length, the longest first, of at most `max_tokens` tokens with padding.

    The batches do not depend on the order of the rows. A longer row gets its own batch.

    Example:
        >>> list(split_by_tokens([[1], [1, 2, 3], [1, 2]], max_tokens=4))
        [[1], [2, 0]]
    """
    batch: list[int] = []
    for position in sorted(range(len(rows)), key=lambda at: (-len(rows[at]), list(rows[at]))):
        if batch and (len(batch) + 1) * len(rows[batch[0]]) > max_tokens:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch
