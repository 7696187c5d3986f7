"""Splitting: sizes, proportions, prefixes, and that the part of a review depends on text and seed alone."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentifactory.corpus.splitting.splits import SplitPlan, split_reviews
from sentifactory.errors import ConfigError, DataError, SentiFactoryError
from sentifactory.records import BALANCED, STRATIFIED, Review, Split

LABELS = ("negative", "positive")


def make_reviews(n_negative: int, n_positive: int) -> list[Review]:
    return [Review(f"差{n}", 0) for n in range(n_negative)] + [Review(f"好{n}", 1) for n in range(n_positive)]


def counts(part: list[Review]) -> tuple[int, int]:
    found = Counter(review.label for review in part)
    return found[0], found[1]


def split(reviews: list[Review], val: float, test: float, **choices: object) -> Split:
    return split_reviews(reviews, LABELS, SplitPlan(val, test, **choices))[0]  # type: ignore[arg-type]


def test_stratified_parts_keep_the_proportions_and_training_is_balanced() -> None:
    parts = split(make_reviews(300, 700), 0.1, 0.2)
    assert [counts(part) for part in parts.parts().values()] == [(210, 210), (30, 70), (60, 140)]


def test_balanced_parts() -> None:
    parts = split(make_reviews(300, 700), 60, 101, eval_classes=BALANCED)
    assert [counts(part) for part in parts.parts().values()] == [(220, 220), (30, 30), (50, 50)]


@pytest.mark.parametrize(("size", "expected"), [(10, (3, 7)), (7, (2, 5)), (5, (2, 3)), (1, (0, 1))])
def test_stratified_counts_add_up(size: int, expected: tuple[int, int]) -> None:
    parts = split(make_reviews(300, 700), size, 0)
    assert sum(counts(parts.val)) == size
    assert counts(parts.val) in {expected, (expected[0] - 1, expected[1] + 1)}
    assert parts.test == []


def test_max_train_counts_all_training_reviews() -> None:
    for max_train, each in [(100, 50), (101, 50), (2, 1), (10_000, 240)]:
        assert counts(split(make_reviews(300, 300), 0.1, 0.1, max_train=max_train).train) == (each, each)


@pytest.mark.parametrize("eval_classes", [BALANCED, STRATIFIED])
def test_every_prefix_of_a_part_has_the_label_proportions_of_the_part(eval_classes: str) -> None:
    parts = split(make_reviews(400, 900), 100, 200, eval_classes=eval_classes)
    for end in range(2, len(parts.train) + 1, 2):
        assert counts(parts.train[:end]) == (end // 2, end // 2)
    for part in (parts.val, parts.test):
        share = counts(part)[0] / len(part)
        for end in range(1, len(part) + 1):
            assert abs(counts(part[:end])[0] - share * end) <= 1


def test_labels_do_not_simply_alternate() -> None:
    train = split(make_reviews(500, 500), 0.1, 0.1).train
    first_of_pair = Counter(review.label for review in train[::2])
    assert 150 < first_of_pair[0] < 250


def test_the_order_of_the_file_does_not_matter_and_the_seed_does() -> None:
    reviews = make_reviews(200, 200)
    shuffled = random.Random(1).sample(reviews, len(reviews))
    assert split(reviews, 0.1, 0.1) == split(shuffled, 0.1, 0.1)
    other = split(reviews, 0.1, 0.1, seed=43)
    assert set(other.test) != set(split(reviews, 0.1, 0.1).test)
    assert split(reviews, 0.1, 0.1, seed=-1) != other


def test_a_larger_val_part_leaves_the_test_part_alone() -> None:
    reviews = make_reviews(200, 300)
    assert split(reviews, 10, 50).test == split(reviews, 200, 50, max_train=2).test


def test_the_split_does_not_depend_on_the_order_of_the_file() -> None:
    """A split that took the first rows would give a mean of 49.5 or so."""
    test = split(make_reviews(1000, 1000), 0, 0.1, eval_classes=BALANCED).test
    places = [int(review.text[1:]) for review in test]
    assert 420 < sum(places) / len(places) < 580


@given(
    st.integers(0, 60),
    st.integers(0, 60),
    st.one_of(st.floats(0, 0.99), st.integers(0, 40)),
    st.one_of(st.floats(0, 0.99), st.integers(0, 40)),
    st.sampled_from([BALANCED, STRATIFIED]),
    st.one_of(st.none(), st.integers(2, 100)),
)
@settings(max_examples=300, deadline=None)
def test_any_plan_places_every_review_once_or_says_why_not(
    n_negative: int, n_positive: int, val: float, test: float, eval_classes: str, max_train: int | None
) -> None:
    reviews = make_reviews(n_negative, n_positive)
    plan = SplitPlan(val, test, eval_classes, max_train)
    try:
        parts, surplus = split_reviews(reviews, LABELS, plan)
    except SentiFactoryError:
        return
    assert Counter([*parts.train, *parts.val, *parts.test, *surplus]) == Counter(reviews)
    assert counts(parts.train)[0] == counts(parts.train)[1] >= 1
    if max_train is not None:
        assert len(parts.train) <= max_train
    for part, size in ((parts.val, val), (parts.test, test)):
        wanted = int(size * len(reviews)) if size < 1 else size
        assert wanted - len(part) in ({0} if eval_classes == STRATIFIED else {0, 1})


@pytest.mark.parametrize(
    ("plan", "where"),
    [
        (SplitPlan(-1, 0.1), "--val_size"),
        (SplitPlan(0.1, 1.5), "--test_size"),
        (SplitPlan(float("nan"), 0.1), "--val_size"),
        (SplitPlan(0.1, float("inf")), "--test_size"),
        (SplitPlan(0.1, 0.1, max_train=1), "--max_train"),
        (SplitPlan(0.1, 0.1, max_train=-4), "--max_train"),
        (SplitPlan(0.1, 0.1, eval_classes="half"), "--eval_classes"),
    ],
)
def test_an_invalid_plan_names_its_option(plan: SplitPlan, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        split_reviews(make_reviews(50, 50), LABELS, plan)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("reviews", "val", "test", "word"),
    [
        (make_reviews(50, 0), 0.1, 0.1, "0 usable reviews with the label 'positive'"),
        (make_reviews(50, 20), 20, 20, "leaves none for training"),
        (make_reviews(50, 50), 99, 99, "leaves none for training"),
        (make_reviews(3, 3), 0.1, 0, "less than one review"),
    ],
)
def test_too_few_reviews_is_an_error_with_counts(reviews: list[Review], val: float, test: float, word: str) -> None:
    with pytest.raises(DataError, match=word):
        split(reviews, val, test, eval_classes=BALANCED)
