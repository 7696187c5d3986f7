"""Writes a fast tokenizer of transformers into a GGUF file, as llama.cpp's tokenizers read it.

Two kinds are known: byte-level BPE (Qwen, Llama 3), which llama.cpp computes from the merges, and SentencePiece BPE
with bytes as the last resort (Gemma, Llama 2), which it computes from a score of each token. A tokenizer.json has no
scores, but its merges are ordered by them, so that the rank of a token's first merge is a score.

Whether llama.cpp then splits texts as transformers does is proven on reviews (`gguf_export.compare_tokens`), not
assumed: llama.cpp does not apply Unicode normalisation, for one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sentifactory.errors import ConfigError

# What stands in a pre-tokenizer of byte-level BPE, and llama.cpp's name for it; the first match counts.
_PRE_TOKENIZERS = ((r"\p{N}{1,3}", "llama-bpe"), (r"\p{N}|", "qwen2"), ('"Digits"', "smollm"), ("", "gpt-2"))
_BYTE = "<0x{:02X}>"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer as GGUF holds it.

    Attributes:
        model: llama.cpp's name of the algorithm: `gpt2` (byte-level BPE) or `llama` (SentencePiece BPE).
        pre: llama.cpp's name of the pre-tokenizer.
        tokens: (n_rows,) by id; rows of the embedding without a token have a placeholder.
        types: (n_rows,) `gguf.TokenType` of each.
        scores: (n_rows,) of SentencePiece; () for byte-level BPE.
        merges: of byte-level BPE, "left right"; () for SentencePiece.
        has_space_prefix: whether a space is put before every text.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...]
    merges: tuple[str, ...]
    has_space_prefix: bool


def read_vocabulary(tokenizer: Any, n_rows: int, where: str) -> Vocabulary:
    """Return the vocabulary of a tokenizer.

    Args:
        tokenizer: of transformers.
        n_rows: rows of the model's embedding.
        where: the model, for the error.

    Raises:
        ConfigError: when it is no BPE tokenizer.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = json.loads(backend.to_str()) if backend is not None else {}
    model = content.get("model") or {}
    parts = _walk([content.get("pre_tokenizer"), content.get("decoder")])
    is_byte_level = any(part["type"] == "ByteLevel" for part in parts)
    if model.get("type") != "BPE" or not (is_byte_level or model.get("byte_fallback")):
        raise ConfigError(
            f"The tokenizer is of the kind {model.get('type') or type(tokenizer).__name__}",
            where=where,
            expected="BPE on bytes, or BPE with bytes as the last resort, as Gemma 3, Llama and Qwen have",
            code="model-unsupported",
        )
    tokens, types = _list_tokens(model, content["added_tokens"], n_rows, is_byte_level)
    pairs = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"]]
    if is_byte_level:
        rules = json.dumps(content["pre_tokenizer"])
        pre = next(name for mark, name in _PRE_TOKENIZERS if mark in rules)
        return Vocabulary("gpt2", pre, tokens, types, (), tuple(map(" ".join, pairs)), False)
    scores = _rank_tokens(tokens, pairs)
    return Vocabulary("llama", "default", tokens, types, scores, (), _has_space_prefix(content))


def _list_tokens(
    model: dict[str, Any], added: list[dict[str, Any]], n_rows: int, is_byte_level: bool
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    from gguf import TokenType

    tokens = [f"[PAD{row}]" for row in range(n_rows)]
    types = [TokenType.UNUSED] * n_rows
    bytes_of_sentencepiece = frozenset() if is_byte_level else frozenset(map(_BYTE.format, range(256)))
    for token, row in model["vocab"].items():
        kind = TokenType.BYTE if token in bytes_of_sentencepiece else TokenType.NORMAL
        _place(tokens, types, row, token, TokenType.UNKNOWN if token == model.get("unk_token") else kind)
    for entry in added:
        is_unknown = entry["content"] == model.get("unk_token") and not is_byte_level
        kind = TokenType.CONTROL if entry["special"] else TokenType.USER_DEFINED
        _place(tokens, types, entry["id"], entry["content"], TokenType.UNKNOWN if is_unknown else kind)
    return tuple(tokens), tuple(map(int, types))


def _place(tokens: list[str], types: list[Any], row: int, token: str, kind: Any) -> None:
    # A tokenizer may have more tokens than the embedding has rows; the model cannot know those.
    if row < len(tokens):
        tokens[row], types[row] = token, kind


def _rank_tokens(tokens: tuple[str, ...], pairs: list[list[str]]) -> tuple[float, ...]:
    """Return scores that are the higher the earlier a token is merged; those that no merge makes have the lowest."""
    ranks: dict[str, int] = {}
    for left, right in pairs:
        ranks.setdefault(left + right, len(ranks))
    return tuple(-float(ranks.get(token, len(ranks))) for token in tokens)


def _has_space_prefix(content: dict[str, Any]) -> bool:
    return any(
        node["type"] == "Prepend" or (node["type"] == "Metaspace" and node.get("prepend_scheme") != "never")
        for node in _walk([content.get("normalizer"), content.get("pre_tokenizer")])
    )


def _walk(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every typed part of a tokenizer.json."""
    if isinstance(node, dict):
        if "type" in node:
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from _walk(part)
