"""Tiny random models with the real vocabularies of Gemma 3 and Qwen2.5, for tests that must run in seconds.

Their answers mean nothing; their tokenizers, chat templates and file layouts are those of the real models.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tools.benches.qwen_shape import SEED, build_qwen

GEMMA_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def link_model(model: Path, folder: Path) -> Path:
    """Make a folder with links to the files of a model, for a test that puts something beside them, and return it."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).symlink_to(file)
    return folder


def build_tiny_gemma(folder: Path, gemma_checkpoint: Path, *, is_short: bool = False) -> Path:
    """Write a random Gemma3ForCausalLM of four layers with the tokenizer of the real checkpoint.

    The tokenizer may be a short one: the first tokens and all characters, which load ten times as fast.
    """
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    for name in GEMMA_TOKENIZER_FILES:
        shutil.copyfile(gemma_checkpoint / name, folder / name)
    torch.manual_seed(SEED)
    config = Gemma3TextConfig(
        vocab_size=shorten_vocabulary(folder / "tokenizer.json") if is_short else 262_144,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16,
        max_position_embeddings=4096,
        sliding_window=512,
        layer_types=["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
    )
    model = Gemma3ForCausalLM(config).to(torch.float32)
    model.save_pretrained(folder)
    shutil.copyfile(gemma_checkpoint / "generation_config.json", folder / "generation_config.json")
    return folder


def shorten_vocabulary(file: Path, n_first: int = 4000) -> int:
    """Leave the first tokens and all single characters in a tokenizer.json, numbered anew; return their number."""
    content = json.loads(file.read_text(encoding="utf-8"))
    model = content["model"]
    kept = [token for token, at in model["vocab"].items() if at < n_first or len(token) == 1]
    kept.sort(key=model["vocab"].__getitem__)
    known = model["vocab"] = {token: at for at, token in enumerate(kept)}
    model["merges"] = [[a, b] for a, b in model["merges"] if a in known and b in known and a + b in known]
    content["added_tokens"] = [
        {**token, "id": known[token["content"]]} for token in content["added_tokens"] if token["content"] in known
    ]
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return len(known)


def build_tiny_qwen(folder: Path) -> Path:
    """Write a random Qwen2ForCausalLM of four layers with the vocabulary and chat template of Qwen2.5."""
    return build_qwen(
        folder, dtype="float32", hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=4096, max_window_layers=4,
    )  # fmt: skip


# Characters of the reviews that tests are trained on, and what hostile ones are written with.
BERT_CHARACTERS = (
    "很好太差了再也不来值得购买房间干净服务热情失望书的内容错屏幕"
    "亮点松动喜欢漂亮糟糕满意劲早餐前台店贴心知道吃饱0123456789，。[]</>ACELPSU"
)


def build_tiny_bert(folder: Path, *, seed: int = 0) -> Path:
    """Save a random BertModel of three layers (hidden 32) with a WordPiece vocabulary of characters; no head."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = [*specials, *dict.fromkeys(BERT_CHARACTERS.lower())]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    tokenizer = BertTokenizerFast(vocab={word: at for at, word in enumerate(vocabulary)}, model_max_length=64)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
