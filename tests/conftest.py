"""Fixtures for every room: the real pretrained model, built once, and tiny random models with real vocabularies."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# No test may reach for a model hub; set before anything imports transformers.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from fake_openai_server import Behaviour, serve_fake
from process_family import PR_SET_CHILD_SUBREAPER, Family
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


@pytest.fixture
def fake() -> Iterator[tuple[Behaviour, str]]:
    """A fake server in this process: its behaviour, which the test may change, and its address."""
    behaviour = Behaviour()
    with serve_fake(behaviour) as address:
        yield behaviour, address


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder that looks like a checkpoint to whoever does not load it."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"max_position_embeddings": 2048}')
    (folder / "model.safetensors").write_bytes(b"")
    return folder


@pytest.fixture
def fake_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put the fake server in the place of `.venv-vllm`; call the fixture's value to change its behaviour."""
    program = tmp_path / "vllm-python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("fake_openai_server.py")} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("SENTIFACTORY_VLLM_PYTHON", str(program))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)  # read TMPDIR again

    def behave(**settings: object) -> None:
        monkeypatch.setenv("FAKE_VLLM", json.dumps(settings))

    behave()
    return behave


@pytest.fixture
def family() -> Iterator[Family]:
    """Adopt every orphan below this process, so that no survivor can hide by losing its parent."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    watch = Family()
    yield watch
    for process in watch.list_alive():
        process.kill()
    prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
