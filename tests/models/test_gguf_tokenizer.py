"""Merges rebuilt from a vocabulary, and the tokenizer that is made of them."""

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from sentifactory.errors import ConfigError
from sentifactory.models.embedded.gguf_file import GgufFile
from sentifactory.models.embedded.gguf_tokenizer import build_tokenizer, rebuild_merges

# A vocabulary in miniature: type 3 control, 6 byte, 4 user-defined, 1 normal. GGUF keeps runs of spaces as spaces.
PIECES = [
    ("<pad>", -1000.0, 3),
    ("<eos>", -1000.0, 3),
    ("<bos>", -1000.0, 3),
    ("<unk>", -1000.0, 3),
    ("<turn>", -1000.0, 3),
    ("  ", -1000.0, 4),
    ("   ", -1000.0, 4),
    *((f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)),
    ("th", -1.0, 1),
    ("he", -2.0, 1),
    ("the", -3.0, 1),
    ("▁the", -4.0, 1),
    ("▁", -5.0, 1),
    ("t", -6.0, 1),
    ("h", -7.0, 1),
    ("e", -8.0, 1),
]
SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<turn>")


def write_vocabulary(path: Path, *, model: str = "llama", space_prefix: bool = False) -> GgufFile:
    tokens, scores, types = zip(*PIECES, strict=True)
    writer = GGUFWriter(path, "gemma3")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_add_space_prefix(space_prefix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return GgufFile(path.read_bytes(), name=path.name)


def test_merges_are_ordered_by_score_then_by_the_longer_left_part() -> None:
    tokens = ["a", "aa", "aaa", "b", "ab", "<x>"]
    scores = np.array([-9.0, -2.0, -3.0, -9.0, -1.0, -1000.0])
    types = np.array([1, 1, 1, 1, 1, 3])
    assert rebuild_merges(tokens, scores, types) == [("a", "b"), ("a", "a"), ("aa", "a"), ("a", "aa")]


def test_user_defined_tokens_are_merged_before_all_others() -> None:
    tokens, scores, types = ["▁", "▁▁", "e", "▁e"], np.array([-3.0, -1000.0, -4.0, -1.0]), np.array([1, 4, 1, 1])
    assert rebuild_merges(tokens, scores, types) == [("▁", "▁"), ("▁", "e")]


def test_text_is_cut_as_the_scores_say(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(write_vocabulary(tmp_path / "v.gguf"), SPECIAL_TOKENS)
    assert tokenizer.encode("the the").tokens == ["<bos>", "the", "▁the"]
    # A run of spaces is one token, and takes the space that "▁the" would have needed.
    assert tokenizer.encode("the   the", add_special_tokens=False).tokens == ["the", "▁▁▁", "the"]
    assert tokenizer.encode("<turn>he", add_special_tokens=False).ids == [4, 264]


def test_unknown_characters_fall_back_to_bytes_and_come_back(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(write_vocabulary(tmp_path / "v.gguf"), SPECIAL_TOKENS)
    ids = tokenizer.encode("the 好", add_special_tokens=False).ids
    assert ids == [265, 267, *(7 + byte for byte in "好".encode())]
    assert tokenizer.decode(ids) == "the 好"
    assert tokenizer.decode([4, *ids, 1], skip_special_tokens=True) == "the 好"


@pytest.mark.parametrize("unlike", [{"model": "gpt2"}, {"space_prefix": True}])
def test_other_kinds_of_vocabulary_are_refused(tmp_path: Path, unlike: dict) -> None:
    with pytest.raises(ConfigError, match="cannot be rebuilt"):
        build_tokenizer(write_vocabulary(tmp_path / "v.gguf", **unlike), SPECIAL_TOKENS)
