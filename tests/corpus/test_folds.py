"""Groups, folds and held-out domains: every review is in one part, and so is every group."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentifactory.corpus.splitting.folds import Partition, hold_out_domains, make_folds, make_partition
from sentifactory.corpus.splitting.splits import SplitPlan, split_reviews
from sentifactory.errors import ConfigError, DataError, SentiFactoryError
from sentifactory.records import BALANCED, Review

LABELS = ("negative", "positive")
N = 400


def make_reviews(n: int = N, seed: int = 0) -> tuple[list[Review], list[int]]:
    """Return reviews of two labels and three domains, and groups: most of one review, some of two to nine."""
    chosen = random.Random(seed)
    groups: list[int] = []
    while len(groups) < n:
        groups += [len(groups)] * (1 if chosen.random() < 0.7 else chosen.randint(2, 9))
    groups = groups[:n]
    reviews = [
        Review(f"评论{number}", int(chosen.random() < 0.6), None, ("书", "酒店", "电脑")[group % 3])
        for number, group in enumerate(groups)
    ]
    return reviews, groups


def parts_of_groups(partition: Partition, reviews: list[Review], groups: list[int]) -> dict[int, set[str]]:
    part_of = {review.text: part for part in partition.disjoint for review in partition.parts[part]}
    found: dict[int, set[str]] = {}
    for review, group in zip(reviews, groups, strict=True):
        if review.text in part_of:
            found.setdefault(group, set()).add(part_of[review.text])
    return found


def check_groups(partition: Partition, reviews: list[Review], groups: list[int]) -> None:
    assert all(len(parts) == 1 for parts in parts_of_groups(partition, reviews, groups).values())


@pytest.mark.parametrize("eval_classes", ["balanced", "stratified"])
@pytest.mark.parametrize("balance", ["down", "up", "none", "weights"])
def test_a_split_keeps_groups_whole_and_sizes(eval_classes: str, balance: str) -> None:
    reviews, groups = make_reviews()
    plan = SplitPlan(0.1, 80, eval_classes, balance=balance)
    split, surplus = split_reviews(reviews, LABELS, plan, groups)
    partition = make_partition(split, surplus)
    check_groups(partition, reviews, groups)
    assert len(split.test) == 80
    assert 38 <= len(split.val) <= 40  # four reviews of ten are in groups, and not every gap can be filled
    assert set(split.train) | set(split.val) | set(split.test) | set(surplus) == set(reviews)
    for part in (split.val, split.test):
        assert len(set(part)) == len(part)
    counts = Counter(review.label for review in split.train)
    times = Counter(review.text for review in split.train).values()
    if balance in ("down", "up"):
        assert counts[0] == counts[1]
    if balance != "down":
        assert not surplus
    assert (max(times) == 1) is (balance != "up")
    for end in range(2, len(split.test), 2):
        if eval_classes == BALANCED:
            assert sum(review.label or 0 for review in split.test[:end]) == end // 2


def test_copies_are_interleaved() -> None:
    reviews = [Review(f"差{n}", 0) for n in range(7)] + [Review(f"好{n}", 1) for n in range(40)]
    train = split_reviews(reviews, LABELS, SplitPlan(0, 0, balance="up"))[0].train
    assert len(train) == 80
    for end in range(2, 81, 2):
        assert sum(review.label or 0 for review in train[:end]) == end // 2
    places = [at for at, review in enumerate(train) if review == train[[one.label for one in train].index(0)]]
    assert len(places) in (5, 6)
    assert min(after - before for before, after in pairwise(places)) >= 10


def test_variants_of_a_few_texts_cannot_be_split() -> None:
    reviews = [Review(f"评论{number}", number % 2) for number in range(400)]
    with pytest.raises(DataError, match=r"Only 0 of 40 .* without separating near duplicates") as caught:
        split_reviews(reviews, LABELS, SplitPlan(0, 0.1), [number // 50 for number in range(400)])
    assert caught.value.where == "--test_size"
    split, _ = split_reviews(reviews, LABELS, SplitPlan(0, 0.25), [number // 50 for number in range(400)])
    assert len(split.test) == 100


def test_a_large_group_goes_to_training() -> None:
    reviews = [Review(f"评论{number}", number % 2) for number in range(400)]
    groups = [0] * 60 + list(range(60, 400))
    for seed in range(12):
        split, _ = split_reviews(reviews, LABELS, SplitPlan(0.2, 0.2, seed=seed), groups)
        assert not set(reviews[:60]) & {*split.val, *split.test}
        assert len(split.val) == len(split.test) == 80


@pytest.mark.parametrize("kind", ["split", "folds", "domains"])
def test_the_order_of_the_file_does_not_matter(kind: str) -> None:
    reviews, groups = make_reviews()
    order = random.Random(1).sample(range(N), N)
    shuffled = [reviews[at] for at in order], [groups[at] for at in order]

    def arrange(reviews: list[Review], groups: list[int]) -> dict[str, list[Review]]:
        plan = SplitPlan(0.1, 0.1)
        if kind == "folds":
            return make_folds(reviews, LABELS, plan, 4, groups).parts
        if kind == "domains":
            return hold_out_domains(reviews, LABELS, SplitPlan(0.1, 0), ["书"], groups).parts
        return split_reviews(reviews, LABELS, plan, groups)[0].parts()

    assert arrange(*shuffled) == arrange(reviews, groups)


@pytest.mark.parametrize("n_folds", [2, 5])
@pytest.mark.parametrize("test_size", [0, 50])
def test_folds_cover_all_reviews(n_folds: int, test_size: int) -> None:
    reviews, groups = make_reviews()
    partition = make_folds(reviews, LABELS, SplitPlan(0, test_size, balance="none"), n_folds, groups)
    check_groups(partition, reviews, groups)
    parts = partition.parts
    assert list(parts) == [f"fold_{n}/{part}" for n in range(n_folds) for part in ("train", "val")] + ["test"]
    vals = [parts[f"fold_{number}/val"] for number in range(n_folds)]
    assert Counter(review for part in [*vals, parts["test"]] for review in part) == Counter(reviews)
    assert len(parts["test"]) == test_size
    sizes = [len(part) for part in vals]
    assert max(sizes) - min(sizes) <= 12
    everyone = Counter(review.label for part in vals for review in part)
    for number, val in enumerate(vals):
        train = parts[f"fold_{number}/train"]
        assert Counter(train) == Counter(review for other in vals if other is not val for review in other)
        assert abs(Counter(review.label for review in val)[1] - everyone[1] / n_folds) <= 10


def test_training_parts_of_folds_are_balanced_on_their_own() -> None:
    reviews, groups = make_reviews()
    partition = make_folds(reviews, LABELS, SplitPlan(0, 0, max_train=100), 4, groups)
    for number in range(4):
        labels = Counter(review.label for review in partition.parts[f"fold_{number}/train"])
        assert labels == {0: 50, 1: 50}
    assert partition.surplus == []


def test_too_many_folds_and_too_few_are_named() -> None:
    reviews, _ = make_reviews(20)
    with pytest.raises(ConfigError, match="1"):
        make_folds(reviews, LABELS, SplitPlan(0, 0), 1, None)
    with pytest.raises(DataError, match="for 15 folds"):
        make_folds(reviews, LABELS, SplitPlan(0, 0), 15, None)


def test_a_held_out_domain_is_the_test_part() -> None:
    reviews, groups = make_reviews()
    groups[0:2] = [groups[-1]] * 2  # the first group is of books, the last one is not: a group over two domains
    domains = {review.domain for review, group in zip(reviews, groups, strict=True) if group == groups[-1]}
    assert len(domains) == 2
    held_out = reviews[0].domain or ""
    partition = hold_out_domains(reviews, LABELS, SplitPlan(0.1, 0, balance="none"), [held_out], groups)
    check_groups(partition, reviews, groups)
    assert set(partition.parts["test"]) == {review for review in reviews if review.domain == held_out}
    others = [*partition.parts["train"], *partition.parts["val"]]
    assert all(review.domain != held_out for review in others)
    leaked = [review for review, _ in partition.leaked]
    assert leaked
    assert Counter([*others, *leaked, *partition.parts["test"]]) == Counter(reviews)
    for review, by in partition.leaked:
        assert groups[reviews.index(review)] == groups[reviews.index(by)]
        assert by.domain == held_out


def test_a_count_limits_the_held_out_reviews() -> None:
    reviews, _ = make_reviews()
    plan = SplitPlan(20, 40, BALANCED)
    partition = hold_out_domains(reviews, LABELS, plan, ["书", "酒店"], None)
    assert Counter(review.label for review in partition.parts["test"]) == {0: 20, 1: 20}
    assert len(partition.parts["val"]) == 20
    everything = [*partition.surplus, *(review for part in partition.parts.values() for review in part)]
    assert Counter(everything) == Counter(reviews)


def test_unknown_domains_are_named() -> None:
    reviews, _ = make_reviews()
    with pytest.raises(DataError, match=r"'手机'.*电脑"):
        hold_out_domains(reviews, LABELS, SplitPlan(0, 0), ["手机"], None)
    with pytest.raises(DataError, match="All reviews belong to"):
        hold_out_domains(reviews, LABELS, SplitPlan(0, 0), ["书", "酒店", "电脑"], None)
    with pytest.raises(DataError, match="domain_column"):
        hold_out_domains([Review("好", 1), Review("差", 0)], LABELS, SplitPlan(0, 0), ["书"], None)


@given(
    st.integers(4, 60), st.integers(0, 20), st.integers(0, 20), st.integers(0, 1000), st.sampled_from(["down", "up"])
)
@settings(max_examples=150, deadline=None)
def test_any_groups_stay_whole(n: int, val: int, test: int, seed: int, balance: str) -> None:
    reviews, groups = make_reviews(n, seed)
    try:
        split, surplus = split_reviews(reviews, LABELS, SplitPlan(val, test, balance=balance), groups)
    except SentiFactoryError:
        return
    check_groups(make_partition(split, surplus), reviews, groups)
    assert {*split.train, *split.val, *split.test, *surplus} == set(reviews)
    assert len(split.val) <= val
    assert len(split.test) <= test
