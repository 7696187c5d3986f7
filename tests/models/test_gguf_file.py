"""The GGUF reader, on small files that the `gguf` package wrote."""

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize

from sentifactory.errors import ConfigError
from sentifactory.models.embedded.gguf_file import GgufFile

MATRIX = np.random.default_rng(7).normal(size=(3, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = GGUFWriter(path, "gemma3")
    writer.add_block_count(18)
    writer.add_rope_freq_base(1e6)
    writer.add_token_list(["<pad>", "好", "▁the"])
    writer.add_token_scores([-1000.0, 0.0, -1.5])
    writer.add_token_types([3, 1, 1])
    writer.add_add_bos_token(True)
    writer.add_tensor("plain", MATRIX)
    writer.add_tensor("vector", MATRIX[0])
    for kind in (GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q5_0):
        writer.add_tensor(kind.name, quantize(MATRIX, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path).read_bytes()


def test_metadata_of_every_kind_is_read(content: bytes) -> None:
    metadata = GgufFile(content).metadata
    assert metadata["general.architecture"] == "gemma3"
    assert metadata["gemma3.block_count"] == 18
    assert metadata["gemma3.rope.freq_base"] == 1e6
    assert metadata["tokenizer.ggml.tokens"] == ["<pad>", "好", "▁the"]
    assert metadata["tokenizer.ggml.scores"].tolist() == [-1000.0, 0.0, -1.5]
    assert metadata["tokenizer.ggml.token_type"].tolist() == [3, 1, 1]
    assert metadata["tokenizer.ggml.add_bos_token"] is True


def test_tensors_come_back_in_rows_first_order(content: bytes) -> None:
    source = GgufFile(content)
    assert np.array_equal(source.load_tensor("plain"), MATRIX)
    assert np.array_equal(source.load_tensor("vector"), MATRIX[0])


@pytest.mark.parametrize("kind", [GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q5_0])
def test_quantised_tensors_are_expanded(content: bytes, kind: GGMLQuantizationType) -> None:
    values = GgufFile(content).load_tensor(kind.name)
    assert values.shape == MATRIX.shape
    assert np.array_equal(values, dequantize(quantize(MATRIX, kind), kind))
    assert 0 < np.abs(values - MATRIX).max() < 0.2


def test_a_file_cut_short_is_refused_wherever_it_ends(content: bytes) -> None:
    header_end = min(place.offset for place in GgufFile(content).tensors.values())
    for end in range(0, header_end - 64, 13):
        with pytest.raises(ConfigError, match="GGUF header cannot be read"):
            GgufFile(content[:end], name="cut.gguf")
    with pytest.raises(ConfigError, match="ends inside the tensor"):
        GgufFile(content[:-40], name="cut.gguf").load_tensor("Q5_0")


def test_other_files_and_versions_are_refused(content: bytes) -> None:
    for wrong in (b"PK\x03\x04" + content[4:], b"GGUF" + (1).to_bytes(4, "little") + content[8:]):
        with pytest.raises(ConfigError, match=r"wrong\.gguf: The GGUF header cannot be read"):
            GgufFile(wrong, name="wrong.gguf")


def test_a_header_that_claims_more_than_the_file_holds_is_refused_at_once() -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<I", 9)
    for item_type in (4, 8):  # numbers, strings
        with pytest.raises(ConfigError, match="GGUF header cannot be read"):
            GgufFile(head + struct.pack("<IQ", item_type, 1 << 40) + bytes(64))


@pytest.mark.parametrize(("value_type", "value"), [(4, struct.pack("<I", 0)), (8, struct.pack("<Q", 1) + b"x")])
def test_an_alignment_that_is_not_a_positive_number_is_refused(value_type: int, value: bytes) -> None:
    key = b"general.alignment"
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", len(key)) + key + struct.pack("<I", value_type)
    with pytest.raises(ConfigError, match="GGUF header cannot be read"):
        GgufFile(head + value)


def test_an_unknown_tensor_is_named(content: bytes) -> None:
    with pytest.raises(ConfigError, match=r"no tensor 'blk\.0'"):
        GgufFile(content).load_tensor("blk.0")
