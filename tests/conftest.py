"""Fixtures for every room: the real pretrained model, built once, and tiny random models with real vocabularies."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# No test may reach for a model hub; set before anything imports transformers.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from tiny_models import build_tiny_gemma, build_tiny_qwen

from sentifactory.models.store import fetch_pretrained

# A suite that is started in the background inherits ignored signals, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def own_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test writes to the user's cache folder, and none finds what another one cached."""
    folder = tmp_path / "sentifactory-cache"
    monkeypatch.setenv("SENTIFACTORY_CACHE_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def gemma_checkpoint(repo_root: Path) -> Path:
    """The real gemma-3-270m in float32, where `sentifactory model fetch` puts it; built by its code when absent."""
    return fetch_pretrained("gemma-3-270m", repo_root / "saves" / "pretrained")


@pytest.fixture(scope="session")
def tiny_gemma(tmp_path_factory: pytest.TempPathFactory, gemma_checkpoint: Path) -> Path:
    """A random Gemma3ForCausalLM of four layers (hidden 32, float32) with the real tokenizer and chat template."""
    return build_tiny_gemma(tmp_path_factory.mktemp("tiny_gemma"), gemma_checkpoint)


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2ForCausalLM of four layers (hidden 32, float32) with Qwen2.5's vocabulary and chat template."""
    return build_tiny_qwen(tmp_path_factory.mktemp("tiny_qwen"))
