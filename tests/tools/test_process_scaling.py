"""The bench of one and two processes, and the arithmetic of the all-reduce."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.benches.process_scaling import (
    BATCH,
    LINK_BYTES_PER_S,
    WAYS,
    compute_reduce,
    count_recipe,
    measure_growth,
    write_growth_table,
    write_reduce_table,
)
from tools.gpu_check.measure import write_texts
from tools.reliability.tiny_recipe import write_reviews

QWEN_RECIPE = "examples/train_freeze/qwen2_5_coder_1_5b_freeze_a100.yaml"


def test_the_tables_show_ratios_and_goals() -> None:
    report = {
        "recipe": "r.yaml", "machine": {"processor": "P", "cores": 2}, "batches": 4, "rounds": 2, "batch": BATCH,
        "samples_per_s": {"stock": {"1": 1.0, "2": 1.5}, "ours": {"1": 4.0, "2": 7.0}},
        "recipes": {"examples/a/b.yaml": {"trainable": 1_000_000_000, "operations": 4e14, "samples": 8}},
    }  # fmt: skip
    for language in ("en", "zh"):
        growth = write_growth_table(report, language)
        assert "| 4.00 | 7.00 | × 1.75 |" in growth
        assert "× 4.7" in growth or "4.7 倍" in growth
        assert write_growth_table({**report, "samples_per_s": {}}, language).count("\n") == 0
        rows = write_reduce_table(report, language).splitlines()[2:4]
        assert rows == [
            "| `a/b.yaml` | 8 | 1000 | 7.00 | 23.3 | 1000.0 | 2% |",
            "| `a/b.yaml` | 64 | 1000 | 7.88 | 157.5 | 1000.0 | 14% |",
        ]


def test_freezing_makes_the_exchange_smaller_in_proportion() -> None:
    for gpus in LINK_BYTES_PER_S:
        whole, frozen = (compute_reduce(weights, 1e12, gpus) for weights in (1_500_000_000, 300_000_000))
        assert whole.reduce_s == pytest.approx(5 * frozen.reduce_s)
        assert whole.sent_bytes < 2 * 4 * 1_500_000_000


@pytest.mark.slow
def test_two_processes_take_turns_with_one(
    small_gemma: Path, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repo_root)
    speeds = measure_growth(small_gemma, batches=2, rounds=1, folder=tmp_path)
    assert speeds.keys() == set(WAYS)
    assert all(speed > 0 for one in speeds.values() for speed in one.values())
    assert [one.keys() for one in speeds.values()] == [{"1", "2"}] * 2


@pytest.mark.slow
def test_a_recipe_is_counted_without_weights(
    tiny_qwen: Path, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repo_root)
    write_reviews(tmp_path, {"scaling": write_texts(32)})
    found = count_recipe(QWEN_RECIPE, tiny_qwen, tmp_path)
    assert found["samples"] == 16
    assert found["trainable"] > 0
    assert found["operations"] > 16 * found["trainable"]
