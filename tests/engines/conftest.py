"""What the tests of the engines share: drivers, reviews, and one real vLLM for all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from process_family import Family

from sentifactory.engines.vllm import VllmEngine
from sentifactory.records import Review
from sentifactory.task import BINARY_SENTIMENT

HERE = Path(__file__).parent


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
