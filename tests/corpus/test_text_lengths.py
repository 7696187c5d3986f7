"""Lengths: figures, bins, tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_reviews import build_tokenizer

from sentifactory.corpus.inspection.text_lengths import (
    MAX_BINS,
    build_histogram,
    choose_bin_width,
    count_tokens,
    describe_lengths,
)
from sentifactory.errors import ConfigError


def test_percentiles_are_lengths_that_occur() -> None:
    figures = describe_lengths(list(range(1, 101)))
    assert figures == {"reviews": 100, "min": 1, "median": 50, "mean": 50.5, "p95": 95, "p99": 99, "max": 100}
    assert describe_lengths([]) is None


@pytest.mark.parametrize(
    ("limit", "width"), [(1, 1), (30, 1), (31, 2), (60, 2), (61, 5), (150, 5), (290, 10), (301, 20)]
)
def test_bin_widths_are_round(limit: int, width: int) -> None:
    assert choose_bin_width(limit) == width


def test_every_review_is_in_one_bin() -> None:
    lengths = {"negative": [*range(1, 200), 5000], "positive": [3] * 50}
    histogram = build_histogram(lengths)
    assert histogram is not None
    assert {label: sum(counts) for label, counts in histogram["counts"].items()} == {"negative": 200, "positive": 50}
    assert histogram["is_last_open"]
    assert len(histogram["edges"]) <= MAX_BINS + 1
    width, edges = histogram["width"], histogram["edges"]
    for label, values in lengths.items():
        for number, edge in enumerate(edges):
            end = float("inf") if number == len(edges) - 1 else edge + width
            assert histogram["counts"][label][number] == sum(edge <= value < end for value in values)


def test_short_reviews_leave_no_open_bin() -> None:
    histogram = build_histogram({"negative": [1, 2, 3], "positive": []})
    assert histogram is not None
    assert not histogram["is_last_open"]
    assert histogram["counts"] == {"negative": [0, 1, 1, 1], "positive": [0, 0, 0, 0]}
    assert build_histogram({"negative": [], "positive": []}) is None


def test_tokens_are_counted_without_special_ones(tmp_path: Path) -> None:
    assert count_tokens(["很好", "", "a b c <end>"], build_tokenizer(tmp_path)) == [2, 0, 4]


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        count_tokens(["很好"], tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be read"):
        count_tokens(["很好"], tmp_path)
