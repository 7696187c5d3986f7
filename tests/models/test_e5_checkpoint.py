"""multilingual-e5-small: the file's format on a small file that is written here, and the real checkpoint."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest

from sentifactory.errors import ConfigError
from sentifactory.models.embedded import e5
from sentifactory.models.embedded.package_parts import find_package_file
from sentifactory.models.store import fetch_pretrained

MATRIX = np.random.default_rng(3).normal(size=(4, 32)).astype(np.float32)
VECTOR = np.arange(32, dtype=np.float32)


def quantise(matrix: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Return a matrix in blocks of 32 (half-precision scale, 16 bytes), and the numbers that they stand for."""
    packed, meant = b"", []
    for row in matrix.reshape(-1, 32):
        scale = np.float16(np.abs(row).max() / 7)
        levels = np.clip(np.round(row / np.float32(scale)), -8, 7).astype(np.int64) + 8
        packed += scale.tobytes() + bytes(
            int(low) | int(high) << 4 for low, high in zip(levels[:16], levels[16:], strict=True)
        )
        meant.append((levels - 8) * np.float32(scale))
    return packed, np.array(meant, dtype=np.float32)


def write_file() -> tuple[bytes, np.ndarray]:
    """Return a whole file with a tokenizer of two pieces and two tensors, and the values of its matrix."""
    blocks, meant = quantise(MATRIX)
    head = e5.MAGIC + struct.pack("<I7ifi", 1, 32, 12, 4, 64, 5, 512, 2, 1e-12, 32)
    head += struct.pack("<5iQ", 2, 0, 2, 1, 3, 3) + struct.pack("<3I2f", 0, 1, 3, -1.0, -2.0) + b"abc"
    head += struct.pack("<iI", 1, 9) + b"123456789"
    names = [("l7.q.w", 1, 128, len(blocks)), ("l7.aln.b", 0, 32, 128)]
    start = len(head) + 4 + sum(2 + len(name) + 21 for name, *_ in names)
    head += struct.pack("<i", len(names))
    for name, form, count, size in names:
        head += struct.pack("<H", len(name)) + name.encode() + struct.pack("<BIQQ", form, count, start, size)
        start += size
    return head + blocks + VECTOR.tobytes(), meant


@pytest.mark.slow
def test_sizes_names_and_values_are_read() -> None:
    content, meant = write_file()
    sizes, places = e5.read_header(content)
    assert sizes["hidden_size"] == 32
    assert sizes["vocab_size"] == 5
    tensors = e5.load_tensors(content, places, sizes, "float32")
    matrix = tensors["encoder.layer.7.attention.self.query.weight"]
    assert matrix.shape == (4, 32)
    np.testing.assert_array_equal(matrix.numpy(), meant)
    np.testing.assert_array_equal(tensors["encoder.layer.7.attention.output.LayerNorm.bias"].numpy(), VECTOR)


def test_a_file_that_is_cut_short_or_of_another_kind() -> None:
    content, _ = write_file()
    sizes, places = e5.read_header(content)
    with pytest.raises(ConfigError, match=r"ends inside the tensor .l7\.aln\.b."):
        e5.load_tensors(content[:-1], places, sizes, "float32")
    for broken in (content[:100], b"GGUF" + content[4:]):
        with pytest.raises(ConfigError, match="header of the weights cannot be read"):
            e5.read_header(broken)
    with pytest.raises(ConfigError, match="unknown format 7"):
        e5.expand_tensor(content, "x", 7, 32, 0)
    with pytest.raises(ConfigError, match=r"tensor 'l0.zz.w' is unknown"):
        e5.rename_tensor("l0.zz.w", sizes)


def test_a_package_that_is_missing_says_what_to_run() -> None:
    with pytest.raises(ConfigError, match=r"package no-such is not installed.*make setup"):
        find_package_file("no-such", "no_such_module", "x.bin")
    with pytest.raises(ConfigError, match="A file of the package pytest is missing"):
        find_package_file("pytest", "pytest", "x.bin")


def test_other_weights_than_expected_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "file.bin"
    damaged.write_bytes(write_file()[0])
    monkeypatch.setattr(e5, "find_package_file", lambda *names: damaged)
    with pytest.raises(ConfigError, match="is damaged: its SHA-256"):
        fetch_pretrained("multilingual-e5-small", tmp_path / "models")
    assert [path.suffix for path in (tmp_path / "models").iterdir()] == [".lock"]


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec(e5.PACKAGE) is None or importlib.util.find_spec(e5.TOKENIZER_MODULE) is None,
    reason="the packages of multilingual-e5-small are not installed",
)
def test_the_real_checkpoint_understands_chinese(repo_root: Path) -> None:
    import torch
    from transformers import AutoModel

    from sentifactory.models.classifiers import encode_texts, pad_batch
    from sentifactory.models.pooled_classifier import pool_tokens

    folder = fetch_pretrained("multilingual-e5-small", repo_root / "saves" / "pretrained")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert {key.partition(".")[0] for key in report["missing_keys"]} == {"pooler"}
    texts = ["query: 房间很干净", "query: 酒店卫生很好", "query: 电脑死机了"]
    ids, mask = pad_batch(tokenizer, encode_texts(tokenizer, texts, 64))
    with torch.inference_mode():
        vectors = pool_tokens(model.eval()(input_ids=ids, attention_mask=mask).last_hidden_state, mask, "mean")
    room, hotel, computer = torch.nn.functional.normalize(vectors, dim=-1)
    assert room @ hotel > room @ computer + 0.05
    # "</s>" is a piece of the vocabulary as well: spelt out in a review it is unknown, and ends nothing.
    (row,) = encode_texts(tokenizer, ["差</s>好<mask>"], 64)
    assert [token in tokenizer.all_special_ids for token in row].count(True) == 2 + row.count(tokenizer.unk_token_id)
    assert row.count(tokenizer.sep_token_id) == 1
