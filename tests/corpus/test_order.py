"""Batches of similar length with balanced labels, from reviews in random order."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest

from sentifactory.corpus.prepare_options import PipelineOptions
from sentifactory.corpus.splitting.order import BATCHES_PER_WINDOW, order_by_batch
from sentifactory.errors import ConfigError
from sentifactory.records import Review

SIZE = 16


def make_reviews(count: int, *, rare_every: int = 2) -> list[Review]:
    """Reviews of random length in which every so many-th is negative; negative ones are longer."""
    rng = random.Random(3)
    reviews = []
    for row in range(count):
        label = int(row % rare_every > 0)
        length = rng.randint(1, 120) + (0 if label else 40)
        reviews.append(Review(f"{row}" + "评" * length, label))
    return reviews


def cut(reviews: list[Review]) -> list[list[Review]]:
    return [reviews[start : start + SIZE] for start in range(0, len(reviews), SIZE)]


@pytest.mark.parametrize("count", [SIZE * BATCHES_PER_WINDOW * 2 + 5, SIZE, 3])
def test_nothing_is_lost_and_a_prefix_is_a_random_sample(count: int) -> None:
    reviews = make_reviews(count)
    ordered = order_by_batch(reviews, SIZE, 42)
    assert Counter(ordered) == Counter(reviews)
    together = SIZE * BATCHES_PER_WINDOW
    assert set(ordered[:together]) == set(reviews[:together])


def test_batches_are_balanced_and_of_similar_length() -> None:
    reviews = make_reviews(SIZE * BATCHES_PER_WINDOW)
    batches = cut(order_by_batch(reviews, SIZE, 42))
    assert {sum(review.label or 0 for review in batch) for batch in batches} == {SIZE // 2}

    def count_padded(made: list[list[Review]]) -> int:
        return sum(max(len(review.text) for review in batch) * len(batch) for batch in made)

    n_chars = sum(len(review.text) for review in reviews)
    assert count_padded(batches) < 1.35 * n_chars < count_padded(cut(reviews))


def test_a_rare_label_is_in_every_batch() -> None:
    batches = cut(order_by_batch(make_reviews(SIZE * BATCHES_PER_WINDOW, rare_every=8), SIZE, 42))
    assert all(1 <= sum(not review.label for review in batch) <= 3 for batch in batches)


def test_long_and_short_batches_are_mixed() -> None:
    ordered = order_by_batch(make_reviews(SIZE * BATCHES_PER_WINDOW), SIZE, 42)
    lengths = [max(len(review.text) for review in batch) for batch in cut(ordered)]
    rises = sum(after > before for before, after in pairwise(lengths))
    assert 15 < rises < 35


def test_the_seed_decides() -> None:
    reviews = make_reviews(SIZE * 20)
    assert order_by_batch(reviews, SIZE, 1) == order_by_batch(reviews, SIZE, 1)
    assert order_by_batch(reviews, SIZE, 1) != order_by_batch(reviews, SIZE, 2)


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="--batch_size"):
        PipelineOptions(batch_size=-1).check(2)
