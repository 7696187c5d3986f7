"""A recipe that trains a model of a few thousand weights in seconds, for tests and benches."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentifactory.task.task import BINARY_SENTIMENT

_LETTERS = "阿白长的二飞高会记开来没你平去人山天为西一在早"
_SIZES = {
    "vocab_size": 8, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
    "sliding_window": 64,
}  # fmt: skip


def save_with_byte_tokenizer(model: Any, folder: Path) -> Path:
    """Save a model with a byte-level tokenizer, because loading a real vocabulary takes seconds."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    bytes_only = Tokenizer(BPE())
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    names = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=names, initial_alphabet=alphabet, show_progress=False)
    bytes_only.train_from_iterator([], trainer)
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_only, **special)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_reviews(folder: Path, parts: Mapping[str, Sequence[tuple[str, int]]]) -> Path:
    """Write texts and labels as data sets, registered as by `data prepare`, and return the data folder."""
    register = {}
    for name, reviews in parts.items():
        lines = [{"messages": BINARY_SENTIMENT.render_messages(text, label)} for text, label in reviews]
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
        register[name] = {
            "file_name": file.name,
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
        }
    (folder / "dataset_info.json").write_text(json.dumps(register), encoding="utf-8")
    return folder


def build_tiny_run(folder: Path, *, save_steps: int, seed: int) -> Path:
    """Write model, data and recipe, and return the recipe's path; an override sets the output folder.

    The recipe has everything that makes continuation hard: several epochs, batches by length in a new random order per
    epoch, an evaluation at each checkpoint, only the last and the best checkpoint kept, the best loaded at the end.
    """
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(seed)
    model = save_with_byte_tokenizer(Gemma3ForCausalLM(Gemma3TextConfig(**_SIZES)), folder / "model")
    source = random.Random(seed)  # noqa: S311  (no secret depends on it)
    reviews = [
        (("差", "好")[number % 2] + "".join(source.choices(_LETTERS, k=source.randrange(6, 30))), number % 2)
        for number in range(56)
    ]
    (folder / "data").mkdir()
    data = write_reviews(folder / "data", {"tiny_train": reviews[:40], "tiny_val": reviews[40:]})
    settings = {
        "model_name_or_path": str(model), "stage": "sft", "do_train": True, "finetuning_type": "freeze",
        "freeze_trainable_layers": 1, "dataset": "tiny_train", "eval_dataset": "tiny_val", "dataset_dir": str(data),
        "template": "gemma2", "cutoff_len": 400, "logging_steps": 1, "save_strategy": "steps",
        "save_steps": save_steps, "save_total_limit": 1, "eval_strategy": "steps", "eval_steps": save_steps,
        "load_best_model_at_end": True, "overwrite_output_dir": True, "report_to": "none", "use_cpu": True,
        "per_device_train_batch_size": 4, "per_device_eval_batch_size": 8,
        "train_sampling_strategy": "group_by_length", "learning_rate": 1.0e-2, "num_train_epochs": 4.0,
        "disable_gradient_checkpointing": True, "seed": seed,
    }  # fmt: skip
    recipe = folder / "tiny.yaml"
    # JSON is YAML.
    recipe.write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return recipe
