"""Splits reviews into train, val and test by the hash of seed and text.

The part of a review depends on its text, its group of near duplicates and the seed, not on the order of the file or
the version of a random number generator; a larger val part never changes the test part. Groups stay in one part.
`folds` makes folds and held-out domains of the same pool; `official_splits` keeps splits that exist already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sentifactory.corpus.splitting.balance import DOWN, apportion, balance_rows, check_balance
from sentifactory.corpus.splitting.order import interleave_labels, make_blocks, rank_texts
from sentifactory.errors import ConfigError, DataError
from sentifactory.records import BALANCED, STRATIFIED, Review, Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A group of near duplicates that would fill more of a val or test part than this goes to training, if it can: many
# variants of one text are a poor test.
_MAX_GROUP_SHARE = 0.05
_ALWAYS_FITS = 4
# Where no group fits into what is left of a part, the part may stay this much smaller than requested.
_MAX_MISSING_SHARE = 0.1
_MAX_MISSING_ROWS = 2


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """How to split.

    Attributes:
        val_size: share of the reviews if below 1, else their number; 0 for no such part.
        test_size: likewise.
        eval_classes: `balanced`: val and test hold equally many of each label; `stratified`: in the proportions of
            the file.
        max_train: most training reviews in total; None: no limit.
        seed: of the order.
        balance: of the training part: `down`, `up`, `none` or `weights`.
    """

    val_size: float
    test_size: float
    eval_classes: str = STRATIFIED
    max_train: int | None = None
    seed: int = 42
    balance: str = DOWN

    def check(self, n_labels: int) -> None:
        """Raise a ConfigError for the first invalid option, before anything is read."""
        for option, size in (("--val_size", self.val_size), ("--test_size", self.test_size)):
            if not (size == 0 or 0 < size < 1 or (size >= 1 and float(size).is_integer())):
                raise ConfigError(
                    f"The size is {size:g}",
                    where=option,
                    expected="a share below 1 such as 0.1, a whole number, or 0",
                    code="split-size",
                )
        if self.eval_classes not in (BALANCED, STRATIFIED):
            raise ConfigError(
                f"The choice is {self.eval_classes!r}",
                where="--eval_classes",
                expected=f"{BALANCED} or {STRATIFIED}",
                code="split-choice",
            )
        if self.max_train is not None and self.max_train < n_labels:
            raise ConfigError(
                f"The number is {self.max_train}",
                where="--max_train",
                expected=f"at least one per label: {n_labels}",
                code="split-size",
            )
        check_balance(self.balance)


@dataclass(slots=True)
class ReviewPool:
    """Labelled reviews in random order, groups together, from which the parts are taken.

    Attributes:
        reviews: all of them.
        labels: the task's label names.
        seed: of the order.
        groups: the group of each review; None: each review is a group of its own.
        ranks: (n, 2) random sort keys.
        blocks: rows that are not taken yet, by group.
    """

    reviews: Sequence[Review]
    labels: Sequence[str]
    seed: int
    groups: Sequence[int] | None = None
    ranks: NDArray[np.uint64] = field(init=False)
    blocks: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        if any(review.label is None for review in self.reviews):
            raise ValueError("a review without a label cannot be split")
        self.ranks = rank_texts(self.reviews, self.seed)
        self.blocks = make_blocks(self.reviews, self.ranks, self.groups)

    def get_label(self, row: int) -> int:
        """Return the label of a row."""
        return self.reviews[row].label or 0

    def count_remaining(self) -> list[int]:
        """Return how many rows of each label are not taken yet."""
        counts = Counter(self.get_label(row) for block in self.blocks for row in block)
        return [counts[label] for label in range(len(self.labels))]

    def sort_by_label(self, rows: Collection[int]) -> list[list[int]]:
        """Return rows by label, in their order."""
        rows_by_label: list[list[int]] = [[] for _ in self.labels]
        for row in rows:
            rows_by_label[self.get_label(row)].append(row)
        return rows_by_label

    def take(self, counts: Sequence[int], option: str) -> list[int]:
        """Take this many rows of each label from the first blocks that fit; large groups only if nothing else fits.

        Raises:
            DataError: when groups of near duplicates leave the part much smaller than requested.
        """
        wanted, taken = list(counts), []
        for largest in (max(_ALWAYS_FITS, int(sum(counts) * _MAX_GROUP_SHARE)), len(self.reviews)):
            taken += self._take_small(wanted, largest)
        n_wanted = sum(counts)
        if n_wanted - len(taken) > max(_MAX_MISSING_ROWS, n_wanted * _MAX_MISSING_SHARE) or (n_wanted and not taken):
            raise DataError(
                f"Only {len(taken)} of {n_wanted} reviews can be taken without separating near duplicates",
                where=option,
                expected="reviews that are not variants of each other",
                next_step="run with 0 for this size and look at them in near_repeats.csv, or give more reviews",
                code="split-near-duplicates",
            )
        return taken

    def _take_small(self, wanted: list[int], largest: int) -> list[int]:
        """Take blocks of at most `largest` rows, and subtract their rows from `wanted`."""
        n_wanted = sum(wanted)
        taken: list[int] = []
        left: list[list[int]] = []
        for place, block in enumerate(self.blocks):
            if len(taken) == n_wanted:
                left += self.blocks[place:]
                break
            needed = [0] * len(wanted)
            for row in block:
                needed[self.get_label(row)] += 1
            if len(block) <= largest and all(map(int.__le__, needed, wanted)):
                taken += block
                wanted[:] = map(int.__sub__, wanted, needed)
            else:
                left.append(block)
        self.blocks = left
        return taken

    def take_train(self, plan: SplitPlan, sizes: Sequence[int], taken: str) -> tuple[list[Review], list[Review]]:
        """Balance all remaining rows as the training part; return it and the rows that were not chosen.

        Args:
            plan: how to balance.
            sizes: rows of each label in the whole pool, for the error.
            taken: what became of the others, for the error.

        Raises:
            DataError: when no row of a label remains.
        """
        rows_by_label = self.sort_by_label([row for block in self.blocks for row in block])
        if min(map(len, rows_by_label)) < 1:
            scarce = min(range(len(rows_by_label)), key=lambda label: len(rows_by_label[label]))
            raise DataError(
                f"There are {sizes[scarce]} usable reviews with the label {self.labels[scarce]!r}; {taken}, which "
                "leaves none for training",
                next_step="give more reviews of this label, or a smaller --val_size and --test_size",
                code="split-too-few",
            )
        chosen, surplus = balance_rows(rows_by_label, plan.balance, plan.max_train)
        return self.interleave(chosen), [self.reviews[row] for row in surplus]

    def interleave(self, rows_by_label: Sequence[Sequence[int]]) -> list[Review]:
        """Return the reviews of rows, with their labels interleaved."""
        return [self.reviews[row] for row in interleave_labels(rows_by_label, self.ranks)]


def split_reviews(
    reviews: Sequence[Review], labels: Sequence[str], plan: SplitPlan, groups: Sequence[int] | None = None
) -> tuple[Split, list[Review]]:
    """Split reviews of which no two have the same text.

    In each part the labels are interleaved: any first n rows hold the labels in the proportions of the part, so that
    a balanced part can be cut anywhere (LLaMA-Factory's `max_samples` takes the first rows). Where no group fits into
    what is left of a val or test part, the part stays a little smaller than requested.

    Args:
        reviews: cleaned reviews, all labelled.
        labels: the task's label names.
        plan: sizes and seed.
        groups: the group of near duplicates of each review; None: each review is a group of its own.

    Returns:
        The split, and the reviews that are in no part because the labels were balanced or `max_train` was reached.

    Raises:
        ConfigError: when the plan is invalid.
        DataError: when there are too few reviews for it.
    """
    plan.check(len(labels))
    pool = ReviewPool(reviews, labels, plan.seed, groups)
    sizes = pool.count_remaining()
    test_counts = count_by_label(plan.test_size, sizes, plan.eval_classes, "--test_size")
    val_counts = count_by_label(plan.val_size, sizes, plan.eval_classes, "--val_size")
    for label, (size, n_test, n_val) in enumerate(zip(sizes, test_counts, val_counts, strict=True)):
        if size - n_test - n_val < 1:
            raise DataError(
                f"There are {size} usable reviews with the label {labels[label]!r}; val takes {n_val} of them and "
                f"test {n_test}, which leaves none for training",
                next_step="give more reviews of this label, or a smaller --val_size and --test_size",
                code="split-too-few",
            )
    test = pool.interleave(pool.sort_by_label(pool.take(test_counts, "--test_size")))
    val = pool.interleave(pool.sort_by_label(pool.take(val_counts, "--val_size")))
    train, surplus = pool.take_train(plan, sizes, "their near duplicates are in val and test")
    return Split(train, val, test), surplus


def count_by_label(size: float, sizes: Sequence[int], eval_classes: str, option: str) -> list[int]:
    """Return how many reviews of each label a val or test part takes.

    Raises:
        DataError: when that is less than one review of a nonzero size.
    """
    if size == 0:
        return [0] * len(sizes)
    wanted = int(size * sum(sizes)) if size < 1 else int(size)
    counts = [wanted // len(sizes)] * len(sizes) if eval_classes == BALANCED else apportion(wanted, sizes)
    if sum(counts) == 0:
        raise DataError(
            f"The size {size:g} of {sum(sizes)} usable reviews is less than one review of each label",
            where=option,
            next_step="give more reviews, a larger size, or 0 for no such part",
            code="split-too-few",
        )
    return counts
