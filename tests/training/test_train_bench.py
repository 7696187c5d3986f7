"""The step benchmark: turns, table, and the switch that it measures."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentifactory.errors import ConfigError
from sentifactory.training.bench import Alternator, format_table, measure_steps

DEMO = "examples/train_freeze/gemma3_270m_freeze_demo.yaml"


def test_table_compares_medians() -> None:
    alternator = Alternator()
    for mode, seconds in (("stock", [4.0, 6.0, 20.0]), ("ours", [2.0, 3.0, 1.0])):
        timing = alternator.timings[mode]
        timing.seconds, timing.cpu_seconds, timing.peak_bytes = seconds, [s * 2 for s in seconds], [1_500_000_000]
    lines = format_table(alternator).splitlines()
    assert lines[2] == "| stock | 6.00 | 4.00 6.00 20.00 | 1.00 | 12.00 | 1.00 | 1.50 GB |"
    assert lines[3] == "| ours | 2.00 | 2.00 3.00 1.00 | 3.00 | 4.00 | 3.00 | 1.50 GB |"


@pytest.mark.slow
def test_steps_take_turns_and_leave_nothing(repo_root: Path, small_gemma: Path, review_data: Path) -> None:
    words = [f"model_name_or_path={small_gemma}", f"dataset_dir={review_data}", "per_device_train_batch_size=4"]
    alternator = measure_steps(repo_root / DEMO, words, pairs=2)
    for timing in alternator.timings.values():
        assert len(timing.seconds) == len(timing.peak_bytes) == 2
        assert min(timing.seconds) > 0
        assert min(timing.peak_bytes) > 50e6
    assert alternator.projected_rows["stock"] > alternator.projected_rows["ours"]


@pytest.mark.slow
def test_nothing_to_compare(repo_root: Path, small_gemma: Path, review_data: Path) -> None:
    words = [f"model_name_or_path={small_gemma}", f"dataset_dir={review_data}", "use_dft_loss=true"]
    with pytest.raises(ConfigError, match="nothing to compare"):
        measure_steps(repo_root / DEMO, words, pairs=1)
