"""The sample keeps the file's class shares."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from sentifactory.corpus.dataset.dataset_files import read_labelled
from sentifactory.corpus.prepare import prepare_reviews
from sentifactory.corpus.splitting.sampling import take_sample
from sentifactory.errors import ConfigError, DataError
from sentifactory.records import Review, Source
from sentifactory.task.task import BINARY_SENTIMENT


def make(counts: dict[int, int]) -> list[Review]:
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [Review(f"text {row}", label, Source("a.csv", row + 2)) for row, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("counts", "wanted", "expected"),
    [
        ({0: 700, 1: 300}, 100, {0: 70, 1: 30}),
        ({0: 600, 1: 600}, 300, {0: 150, 1: 150}),
        ({0: 2, 1: 1}, 2, {0: 1, 1: 1}),  # exact shares 1.33 and 0.67: the larger remainder gets the place
        ({0: 5, 1: 5}, 1, {0: 1}),
        ({0: 10, 1: 10, 2: 10}, 10, {0: 4, 1: 3, 2: 3}),
    ],
)
def test_the_sample_keeps_the_class_shares_of_the_file(
    counts: dict[int, int], wanted: int, expected: dict[int, int]
) -> None:
    sample = take_sample(make(counts), wanted, seed=1)
    assert Counter(review.label for review in sample) == expected


def test_the_sample_is_seeded_in_file_order_and_without_duplicates() -> None:
    reviews = make({0: 500, 1: 500})
    sample = take_sample(reviews, 100, seed=7)
    assert sample == take_sample(reviews, 100, seed=7)
    assert sample != take_sample(reviews, 100, seed=8)
    lines = [review.source.line for review in sample if review.source]
    assert lines == sorted(set(lines))
    assert len(lines) == 100


@pytest.mark.parametrize("wanted", [None, 3, 30])
def test_all_reviews_when_there_are_no_more(wanted: int | None) -> None:
    reviews = make({0: 1, 1: 2})
    assert take_sample(reviews, wanted, seed=0) == reviews


def test_an_empty_sample_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        take_sample(make({0: 5}), 0, seed=0)
    assert (caught.value.what, caught.value.expected) == ("--max_samples is 0", "1 or more")
    assert caught.value.next_step == "leave it out to use every review"


def test_rows_without_a_text_are_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('label,text\n1,很好\n0,""\n0,差\n1,NA\n', encoding="utf-8")
    reviews, n_empty = read_labelled(path, BINARY_SENTIMENT)
    assert [(review.text, review.label) for review in reviews] == [("很好", 1), ("差", 0), ("NA", 1)]
    assert n_empty == 1
    first, _ = read_labelled(path, BINARY_SENTIMENT, limit=1)
    assert [review.text for review in first] == ["很好"]


def test_a_file_without_any_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('label,text\n1,""\n', encoding="utf-8")
    with pytest.raises(DataError, match="No row has a text"):
        read_labelled(path, BINARY_SENTIMENT)


def test_texts_are_cleaned_as_for_training_unless_they_were_prepared(tmp_path: Path) -> None:
    raw = tmp_path / "raw.csv"
    rows = [f"{number % 2},第{number}间房&amp;lt;好\u200b吗" for number in range(20)]
    raw.write_text("\n".join(["label,text", "1,\u200b&nbsp;", *rows]), encoding="utf-8")
    reviews, n_empty = read_labelled(raw, BINARY_SENTIMENT)
    assert {review.text for review in reviews} == {f"第{number}间房&lt;好吗" for number in range(20)}
    assert n_empty == 1
    prepare_reviews(str(raw), name="set", output_dir=tmp_path / "data", val_size=0, test_size=0)
    prepared, _ = read_labelled(tmp_path / "data" / "set" / "train.csv", BINARY_SENTIMENT)
    assert {review.text for review in prepared} <= {review.text for review in reviews}
