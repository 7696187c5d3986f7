"""What the tests of the engines share: a stand-in for vLLM, a family watch, and one real vLLM for all."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from fake_openai_server import Behaviour, serve_fake

from sentifactory.engines.vllm import VllmEngine
from sentifactory.records import Review
from sentifactory.task import BINARY_SENTIMENT

HERE = Path(__file__).parent
PR_SET_CHILD_SUBREAPER = 36


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


class Family:
    """All processes that were started since the watch began, orphans included."""

    def __init__(self) -> None:
        self._before = {process.pid for process in psutil.Process().children(recursive=True)}

    def list_alive(self) -> list[psutil.Process]:
        alive = []
        for process in psutil.Process().children(recursive=True):
            try:
                if process.pid not in self._before and process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(process)
            except psutil.NoSuchProcess:
                continue
        return alive

    def wait_for(self, number: int, within_s: float) -> list[psutil.Process]:
        """Wait until that many processes are alive and return them, parents before children."""
        deadline = time.monotonic() + within_s
        while len(alive := self.list_alive()) != number and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(alive) == number, [process.cmdline() for process in alive]
        return alive

    def find(self, word: str, within_s: float) -> psutil.Process:
        """Wait for a process with this word as an argument and return it."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            for process in self.list_alive():
                try:
                    if any(word in argument for argument in process.cmdline()):
                        return process
                except psutil.NoSuchProcess:
                    continue
            time.sleep(0.02)
        raise AssertionError(f"no process with {word!r} within {within_s} s")


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


@pytest.fixture
def start_driver() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process that asks as the comparison does; it is collected at the end."""
    drivers: list[subprocess.Popen[str]] = []

    def start(model: Path | str, reviews: int = 1000) -> subprocess.Popen[str]:
        command = [sys.executable, str(HERE / "ask_driver.py"), str(model), str(reviews)]
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        drivers.append(driver)
        return driver

    yield start
    for driver in drivers:
        driver.kill()
        driver.wait()
        if driver.stdout is not None:
            driver.stdout.close()


@pytest.fixture(scope="session")
def reviews() -> list[Review]:
    """Forty real reviews, 20 of each label."""
    rows = (HERE / "assets" / "reviews.tsv").read_text(encoding="utf-8").splitlines()
    return [Review(text, int(label)) for label, _, text in (row.partition("\t") for row in rows)]


@pytest.fixture(scope="module")
def vllm_base(gemma_checkpoint: Path) -> Iterator[VllmEngine]:
    """The real gemma-3-270m on a real vLLM, started once for a file of tests; nothing of it may be left at the end."""
    shared_memory = Path("/dev/shm")
    before = {entry.name for entry in shared_memory.glob("psm_*")}
    watch = Family()
    with VllmEngine(str(gemma_checkpoint), BINARY_SENTIMENT, name="base") as engine:
        yield engine
    assert watch.list_alive() == []
    assert {entry.name for entry in shared_memory.glob("psm_*")} <= before
