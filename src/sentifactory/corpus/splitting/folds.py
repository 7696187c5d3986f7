"""Partitions cleaned reviews: one split, folds for cross-validation, or whole domains held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sentifactory.corpus.splitting.balance import balance_rows
from sentifactory.corpus.splitting.splits import ReviewPool, SplitPlan, count_by_label, split_reviews
from sentifactory.errors import ConfigError, DataError
from sentifactory.records import Review, Split

_LISTED_DOMAINS = 10


@dataclass(frozen=True, slots=True)
class Partition:
    """Reviews in named parts.

    Attributes:
        parts: reviews by part: train, val, test; or fold_0/train, fold_0/val, ..., test.
        disjoint: names of the parts of which no two may share a text. The training parts of folds are not listed:
            each consists of the val parts of the other folds.
        surplus: reviews that are in no part, to balance the labels or because `max_train` was reached.
        leaked: reviews that are in no part because they duplicate a held-out one, each with that one.
    """

    parts: dict[str, list[Review]]
    disjoint: tuple[str, ...]
    surplus: list[Review] = field(default_factory=list)
    leaked: list[tuple[Review, Review]] = field(default_factory=list)


def make_partition(split: Split, surplus: list[Review]) -> Partition:
    """Return one split as a partition."""
    return Partition(split.parts(), tuple(split.parts()), surplus)


def make_folds(
    reviews: Sequence[Review], labels: Sequence[str], plan: SplitPlan, n_folds: int, groups: Sequence[int] | None
) -> Partition:
    """Split reviews into a test part and folds: each fold in turn is the val part, and the others are for training.

    Each review is in exactly one val part (or in test). The training part of each fold is balanced on its own; a row
    that it leaves out is not surplus, because it is in the val part of its fold.

    Raises:
        ConfigError: when there are fewer than two folds.
        DataError: when there are too few reviews for them.
    """
    plan.check(len(labels))
    if n_folds < 2:
        raise ConfigError(f"The number is {n_folds}", where="--folds", expected="at least 2")
    pool = ReviewPool(reviews, labels, plan.seed, groups)
    test_counts = count_by_label(plan.test_size, pool.count_remaining(), plan.eval_classes, "--test_size")
    test = pool.take(test_counts, "--test_size")
    folds = _deal_into_folds(pool, n_folds)
    parts: dict[str, list[Review]] = {}
    for fold, rows in enumerate(folds):
        val = pool.sort_by_label(rows)
        others = pool.sort_by_label([row for other in folds if other is not rows for row in other])
        for label, val_and_train in enumerate(zip(val, others, strict=True)):
            if not all(val_and_train):
                raise DataError(
                    f"There are too few reviews with the label {labels[label]!r} for {n_folds} folds (near "
                    "duplicates stay in one fold)",
                    where="--folds",
                    next_step="give more reviews of this label, fewer folds or a smaller --test_size",
                )
        chosen, _ = balance_rows(others, plan.balance, plan.max_train)
        parts[f"fold_{fold}/train"] = pool.interleave(chosen)
        parts[f"fold_{fold}/val"] = pool.interleave(val)
    parts["test"] = pool.interleave(pool.sort_by_label(test))
    return Partition(parts, (*(f"fold_{fold}/val" for fold in range(n_folds)), "test"))


def _deal_into_folds(pool: ReviewPool, n_folds: int) -> list[list[int]]:
    """Assign each remaining block to the fold with the fewest rows of its labels, then the fewest rows."""
    counts = [[0] * len(pool.labels) for _ in range(n_folds)]
    folds: list[list[int]] = [[] for _ in range(n_folds)]
    for block in pool.blocks:
        labels = [pool.get_label(row) for row in block]
        fold = min(range(n_folds), key=lambda fold: (sum(counts[fold][label] for label in labels), len(folds[fold])))
        folds[fold] += block
        for label in labels:
            counts[fold][label] += 1
    return folds


def hold_out_domains(
    reviews: Sequence[Review],
    labels: Sequence[str],
    plan: SplitPlan,
    domains: Sequence[str],
    groups: Sequence[int] | None,
) -> Partition:
    """Test on whole domains and train on the others; near duplicates of held-out reviews are in no part.

    Args:
        reviews: cleaned reviews, all labelled.
        labels: the task's label names.
        plan: val_size applies to the other domains; a count as test_size takes that many held-out reviews, any other
            value takes all of them.
        domains: the domains to hold out.
        groups: the group of near duplicates of each review; None: each review is a group of its own.

    Raises:
        DataError: when a domain has no reviews, or no other domain has any.
    """
    _check_domains(reviews, domains)
    numbers = range(len(reviews)) if groups is None else groups
    held_out = [review.domain in domains for review in reviews]
    held_groups = {number: row for row, number in enumerate(numbers) if held_out[row]}
    staying = [row for row, number in enumerate(numbers) if not held_out[row] and number not in held_groups]
    leaked = [
        (reviews[row], reviews[held_groups[number]])
        for row, number in enumerate(numbers)
        if not held_out[row] and number in held_groups
    ]
    rest_plan = SplitPlan(plan.val_size, 0, plan.eval_classes, plan.max_train, plan.seed, plan.balance)
    rest, surplus = split_reviews(
        [reviews[row] for row in staying], labels, rest_plan, [numbers[row] for row in staying]
    )
    held_rows = [row for row, is_held in enumerate(held_out) if is_held]
    test_pool = ReviewPool([reviews[row] for row in held_rows], labels, plan.seed, [numbers[row] for row in held_rows])
    sizes = test_pool.count_remaining()
    counts = count_by_label(plan.test_size, sizes, plan.eval_classes, "--test_size") if plan.test_size >= 1 else sizes
    rows = range(len(held_rows)) if counts == sizes else test_pool.take(counts, "--test_size")
    chosen = set(rows)
    surplus += [test_pool.reviews[row] for row in range(len(held_rows)) if row not in chosen]
    split = Split(rest.train, rest.val, test_pool.interleave(test_pool.sort_by_label(rows)))
    return Partition(split.parts(), tuple(split.parts()), surplus, leaked)


def _check_domains(reviews: Sequence[Review], domains: Sequence[str]) -> None:
    """Raise a DataError unless every domain has reviews and other domains have some, too."""
    known = {review.domain for review in reviews}
    names = sorted(str(name) for name in known if name is not None)
    shown = ", ".join(names[:_LISTED_DOMAINS]) + (", ..." if len(names) > _LISTED_DOMAINS else "")
    for domain in domains:
        if domain not in known:
            raise DataError(
                f"No review has the domain {domain!r}",
                where="--holdout_domain",
                expected=f"one of {shown}" if names else "reviews with a domain",
                next_step="name the column of the domains with --domain_column, or give one file per domain",
            )
    if known <= set(domains):
        raise DataError(
            "All reviews belong to the held-out domains, which leaves none for training", where="--holdout_domain"
        )
