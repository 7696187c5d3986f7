"""What the tests of the engines share: a stand-in for vLLM, a family watch, and one real vLLM for all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fake_openai_server import Behaviour, serve_fake
from process_family import DrivenVllm, Family, adopt_orphans, run_driver

from sentifactory.records import Review

HERE = Path(__file__).parent


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
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {HERE / "fake_openai_server.py"} "$@"\n')
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
    """What a test starts, orphans included."""
    with adopt_orphans() as watch:
        yield watch


@pytest.fixture
def start_driver() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a driver for the length of a test."""
    with ExitStack() as stack:
        yield lambda *words, **options: stack.enter_context(run_driver(*words, **options))


@pytest.fixture(scope="session")
def reviews() -> list[Review]:
    """Forty real reviews, 20 of each label."""
    rows = (HERE / "assets" / "reviews.tsv").read_text(encoding="utf-8").splitlines()
    return [Review(text, int(label)) for label, _, text in (row.partition("\t") for row in rows)]


@pytest.fixture(scope="module")
def vllm_base(gemma_checkpoint: Path) -> Iterator[DrivenVllm]:
    """The real gemma-3-270m on a real vLLM: started once for a file of tests, of which the last one kills it."""
    with adopt_orphans() as watch, run_driver(gemma_checkpoint, waits=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "start\n"
        stage, _, address = driver.stdout.readline().strip().partition(" ")
        assert stage == "ready"
        yield DrivenVllm(driver, watch, address)
