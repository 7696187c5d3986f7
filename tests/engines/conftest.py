"""What the tests of the engines share: reviews, and one real vLLM for all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from process_family import DrivenVllm, adopt_orphans, run_driver

from sentifactory.records import Review

HERE = Path(__file__).parent


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
        stage, address, key = driver.stdout.readline().split()
        assert stage == "ready"
        yield DrivenVllm(driver, watch, address, key)
        driver.kill()
        watch.wait_for(0, within_s=60)  # its guards remove its folder, if they are let
