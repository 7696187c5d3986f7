"""The generator of the bench makes the stated duplicates, and the bench measures a real run."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from rapidfuzz.distance import Levenshtein

from sentifactory.clean_text import normalise_text
from tools.benches.data_pipeline import bench_data_pipeline
from tools.benches.synthetic_reviews import (
    EXACT_KINDS,
    change_one_in_ten,
    generate_reviews,
    load_stock,
    repeat_exactly,
)

LONG = "酒店的位置很好，就在ＷＣ旁边，早餐OK，服务员态度很热情"


@pytest.mark.parametrize("kind", EXACT_KINDS)
def test_exact_duplicates_are_equal_after_normalisation(kind: str) -> None:
    for seed in range(20):
        repeat = repeat_exactly(LONG, kind, random.Random(seed))
        assert normalise_text(repeat) == normalise_text(LONG)
        assert (repeat == LONG) is (kind == "same")
    with pytest.raises(ValueError, match="no kind 'other'"):
        repeat_exactly(LONG, "other", random.Random(1))


@pytest.mark.parametrize(
    ("text", "n_changes"), [("好", 1), ("很好", 1), (LONG[:19], 1), (LONG[:20], 2), (LONG * 4, len(LONG) * 4 // 10)]
)
def test_one_character_in_ten_is_changed(text: str, n_changes: int) -> None:
    distances = [Levenshtein.distance(text, change_one_in_ten(text, random.Random(seed))) for seed in range(50)]
    assert n_changes - 1 <= max(distances) <= n_changes
    assert min(distances) >= max(1, n_changes // 2)  # a deletion next to an insertion can be one edit
    lengths = {len(change_one_in_ten(text, random.Random(seed))) - len(text) for seed in range(50)}
    assert {-1, 0, 1} <= lengths


def test_generated_reviews_depend_on_the_seed_and_have_the_stated_duplicates() -> None:
    stock = load_stock()[::10]
    made = list(generate_reviews(3000, 4, stock))
    assert made == list(generate_reviews(3000, 4, stock))
    assert made != list(generate_reviews(3000, 5, stock))
    kinds = Counter(one.kind for one in made)
    assert 100 < kinds["exact"] < 200
    assert 100 < kinds["near"] < 200
    for one in made:
        if one.origin is not None:
            before = made[one.origin]
            assert one.label == before.label
            assert (normalise_text(one.text) == normalise_text(before.text)) is (
                one.kind == "exact"
            ) or one.kind == "near"
    known = set("".join(review.text for review in stock))
    assert all(set(one.text) <= known for one in made if one.kind == "recombined")


@pytest.mark.slow
def test_the_bench_writes_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench_data_pipeline([1000, 2000], 2, str(tmp_path / "bench"))
    report = json.loads((tmp_path / "bench" / "data_gate.json").read_text(encoding="utf-8"))
    assert (report["cpu_cores"], report["seed"]) == (os.cpu_count(), 2)
    assert [run["reviews"] for run in report["runs"]] == [1000, 2000]
    for run in report["runs"]:
        assert run["kept"] + sum(run["rejected_by_reason"].values()) == run["reviews"]
        assert run["rejected_by_reason"]["repeat"] > 20
        assert run["leaks"] == 0
        assert run["near_repeat_groups"] > 20
        assert run["largest_group"] >= 2
        assert 0 < run["cpu_s"] < 4 * run["wall_s"]
        assert run["reviews_per_s"] == pytest.approx(run["reviews"] / run["wall_s"], rel=0.02)
    table = (tmp_path / "bench" / "data_gate.md").read_text(encoding="utf-8")
    assert table.count("\n") == 4
    assert table.splitlines()[0].startswith("| reviews | seconds | CPU seconds |")
    row = table.splitlines()[3].strip("| ").split(" | ")
    run = report["runs"][1]
    assert row[:4] == ["2,000", str(run["wall_s"]), str(run["cpu_s"]), f"{run['reviews_per_s']:,}"]
    assert row[5:] == [str(run["peak_rss_gib"]), f"{run['near_repeat_groups']:,}", "0"]
    assert table.strip() in capsys.readouterr().out


@pytest.mark.slow
def test_the_peak_is_that_of_the_pipeline(tmp_path: Path, repo_root: Path) -> None:
    """In a separate process: peak memory starts at that of the parent, which has loaded everything other tests use."""
    script = [sys.executable, "-m", "tools.benches.data_pipeline"]
    words = ["--sizes", "1000", "--sizes", "2000", "--output_dir", str(tmp_path)]
    subprocess.run([*script, *words], cwd=repo_root, capture_output=True, check=True)
    runs = json.loads((tmp_path / "data_gate.json").read_text(encoding="utf-8"))["runs"]
    assert [run["reviews"] for run in runs] == [1000, 2000]
    assert all(0.05 < run["peak_rss_gib"] < 4 for run in runs)
