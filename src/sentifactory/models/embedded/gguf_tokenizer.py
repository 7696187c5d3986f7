"""Rebuilds a SentencePiece BPE tokenizer exactly from the vocabulary in a GGUF file.

GGUF stores tokens and scores but no merges, and transformers converts such a vocabulary into a Unigram model, which
splits much Chinese text into single characters. The merges can be recovered: every split of a token into two tokens is
a merge of SentencePiece, with the rank of the merged token. Covered: SentencePiece BPE with byte fallback and without
a leading space (Gemma). Not covered: byte-level BPE (Qwen).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sentifactory.errors import ConfigError
from sentifactory.models.embedded.gguf_file import GgufFile

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPACE_MARK = "▁"
TYPE_NORMAL, TYPE_CONTROL, TYPE_USER_DEFINED = 1, 3, 4


def rebuild_merges(tokens: Sequence[str], scores: np.ndarray, types: np.ndarray) -> list[tuple[str, str]]:
    """Return the merges of a SentencePiece BPE vocabulary, in the order of application.

    Every split of a normal or user-defined token into two such tokens is a merge. They are sorted by the score of the
    merged token (highest first), then by the lengths of the left and the right part (longest first), then by id.

    Args:
        tokens: (n_tokens,) the vocabulary in id order, with spaces as `SPACE_MARK`.
        scores: (n_tokens,) higher scores are merged earlier.
        types: (n_tokens,) GGUF's token types.

    Example:
        >>> rebuild_merges(["a", "b", "ab"], np.array([-3.0, -2.0, -1.0]), np.array([1, 1, 1]))
        [('a', 'b')]
    """
    mergeable = np.flatnonzero((types == TYPE_NORMAL) | (types == TYPE_USER_DEFINED)).tolist()
    ids = {tokens[index]: index for index in mergeable}
    # GGUF stores -1000 for user-defined tokens, but SentencePiece uses 0, which merges them first.
    ranks = np.where(types == TYPE_USER_DEFINED, 0.0, scores)
    merges = [
        (token[:cut], token[cut:])
        for token in ids
        for cut in range(1, len(token))
        if token[:cut] in ids and token[cut:] in ids
    ]
    merged_ranks = ranks[[ids[left + right] for left, right in merges]]
    lengths = np.array([(len(left), len(right)) for left, right in merges])
    order = np.lexsort((-lengths[:, 1], -lengths[:, 0], -merged_ranks))  # the last key sorts first; ties keep id order
    return [merges[place] for place in order.tolist()]


def build_tokenizer(source: GgufFile, special_tokens: Sequence[str]) -> Tokenizer:
    """Return the tokenizer of a GGUF file with a SentencePiece BPE vocabulary.

    Args:
        source: the GGUF file.
        special_tokens: tokens that decoding can skip; GGUF's types do not distinguish them from reserved tokens.

    Raises:
        ConfigError: when the file has another type of vocabulary.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE

    metadata = source.metadata
    kind = metadata.get("tokenizer.ggml.model")
    if kind != "llama" or metadata.get("tokenizer.ggml.add_space_prefix", True):
        raise ConfigError(
            f"The GGUF file's tokenizer {kind!r} cannot be rebuilt",
            expected="a SentencePiece BPE vocabulary (llama) without a leading space",
        )
    types: np.ndarray = metadata["tokenizer.ggml.token_type"]
    tokens = [token.replace(" ", SPACE_MARK) for token in metadata["tokenizer.ggml.tokens"]]
    merges = rebuild_merges(tokens, metadata["tokenizer.ggml.scores"], types)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    unknown, begin = metadata["tokenizer.ggml.unknown_token_id"], metadata["tokenizer.ggml.bos_token_id"]
    tokenizer = Tokenizer(
        BPE(vocab=vocabulary, merges=merges, unk_token=tokens[unknown], byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", SPACE_MARK)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{tokens[begin]} $A",
        pair=f"{tokens[begin]} $A {tokens[begin]}:1 $B:1",
        special_tokens=[(tokens[begin], begin)],
    )
    whole = np.flatnonzero((types == TYPE_CONTROL) | (types == TYPE_USER_DEFINED)).tolist()
    special = {*special_tokens, tokens[unknown]}
    tokenizer.add_tokens(
        [AddedToken(tokens[i], normalized=False, special=tokens[i] in special) for i in sorted({*whole, unknown})]
    )
    return tokenizer
