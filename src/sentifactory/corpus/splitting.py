"""Parts reviews into train, val and test, or into folds, by the hash of seed and text.

A review's place depends on its text, its group of near repeats and the seed, not on the order of the file or the
version of a random number generator; a bigger val part never changes the test part. Groups stay in one part. Covered:
sizes by share or count, val and test balanced or in the proportions of the file, folds, held-out domains. Not covered:
parts that were made elsewhere, which are only checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sentifactory.corpus.balance import DOWN, balance_piles, check_balance, share_out
from sentifactory.corpus.ordering import make_blocks, rank_texts, spread_labels
from sentifactory.errors import ConfigError, DataError
from sentifactory.records import Review, Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BALANCED = "balanced"
STRATIFIED = "stratified"
# A group of near repeats that would fill more of a val or test part than this goes to training, if it can: a test of
# one text in many forms tells little.
_LARGEST_GROUP_SHARE = 0.05
_ALWAYS_FITS = 4
# Where groups do not fit in the last places, a part may stay so much smaller than asked for.
_MISSING_SHARE = 0.1
_MISSING_ROWS = 2


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """How to split.

    Attributes:
        val_size: share of the reviews if below 1, else their number; 0 for no such part.
        test_size: the same.
        eval_classes: `balanced`: val and test hold as many of each label; `stratified`: as the file has them.
        max_train: most training reviews in all, or None for as many as there are.
        seed: another seed gives another split.
        balance: of the training part: `down`, `up`, `none` or `weights`.
    """

    val_size: float
    test_size: float
    eval_classes: str = STRATIFIED
    max_train: int | None = None
    seed: int = 42
    balance: str = DOWN

    def check(self, n_labels: int) -> None:
        """Raise a ConfigError for the first option that cannot be right, before anything is read."""
        for option, size in (("--val_size", self.val_size), ("--test_size", self.test_size)):
            if not (size == 0 or 0 < size < 1 or (size >= 1 and float(size).is_integer())):
                raise ConfigError(
                    f"The size is {size:g}", where=option, expected="a share below 1 such as 0.1, a whole number, or 0"
                )
        if self.eval_classes not in (BALANCED, STRATIFIED):
            raise ConfigError(
                f"The choice is {self.eval_classes!r}", where="--eval_classes", expected=f"{BALANCED} or {STRATIFIED}"
            )
        if self.max_train is not None and self.max_train < n_labels:
            raise ConfigError(
                f"The number is {self.max_train}", where="--max_train", expected=f"at least one a label: {n_labels}"
            )
        check_balance(self.balance)


@dataclass(slots=True)
class Deck:
    """Labelled reviews in random order, groups together, from which parts are dealt.

    Attributes:
        reviews: all of them.
        labels: the task's label names.
        seed: of the order.
        groups: the group of each review; None: every review is its own.
        ranks: (n, 2) their random order.
        blocks: rows that are not dealt yet, by group.
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

    def label_of(self, row: int) -> int:
        """Return the label of a row."""
        return self.reviews[row].label or 0

    def count_left(self) -> list[int]:
        """Return how many rows of each label are not dealt yet."""
        counts = Counter(self.label_of(row) for block in self.blocks for row in block)
        return [counts[label] for label in range(len(self.labels))]

    def sort_by_label(self, rows: Collection[int]) -> list[list[int]]:
        """Return rows by label, in the order in which they come."""
        piles: list[list[int]] = [[] for _ in self.labels]
        for row in rows:
            piles[self.label_of(row)].append(row)
        return piles

    def deal(self, counts: Sequence[int], option: str) -> list[int]:
        """Take so many rows of each label from the blocks, the first that fit; large groups only if nothing else is.

        Raises:
            DataError: when groups of near repeats leave the part much smaller than asked for.
        """
        wanted, dealt = list(counts), []
        for largest in (max(_ALWAYS_FITS, int(sum(counts) * _LARGEST_GROUP_SHARE)), len(self.reviews)):
            dealt += self._deal_small(wanted, largest)
        n_wanted = sum(counts)
        if n_wanted - len(dealt) > max(_MISSING_ROWS, n_wanted * _MISSING_SHARE) or (n_wanted and not dealt):
            raise DataError(
                f"Only {len(dealt)} of {n_wanted} reviews can be taken without tearing near repeats apart",
                where=option,
                expected="reviews that are not variations of each other",
                next_step="look at them in near_repeats.csv after a run with 0 for this size, or give more reviews",
            )
        return dealt

    def _deal_small(self, wanted: list[int], largest: int) -> list[int]:
        """Take blocks of at most `largest` rows, and count what is wanted down."""
        n_wanted = sum(wanted)
        dealt: list[int] = []
        left: list[list[int]] = []
        for place, block in enumerate(self.blocks):
            if len(dealt) == n_wanted:
                left += self.blocks[place:]
                break
            needed = [0] * len(wanted)
            for row in block:
                needed[self.label_of(row)] += 1
            if len(block) <= largest and all(map(int.__le__, needed, wanted)):
                dealt += block
                wanted[:] = map(int.__sub__, wanted, needed)
            else:
                left.append(block)
        self.blocks = left
        return dealt

    def deal_train(self, plan: SplitPlan, sizes: Sequence[int], taken: str) -> tuple[list[Review], list[Review]]:
        """Balance all rows that are left as the training part; return it and those that were not chosen.

        Raises:
            DataError: when a label has none left.
        """
        piles = self.sort_by_label([row for block in self.blocks for row in block])
        if min(map(len, piles)) < 1:
            scarce = min(range(len(piles)), key=lambda label: len(piles[label]))
            raise DataError(
                f"There are {sizes[scarce]} usable reviews with the label {self.labels[scarce]!r}; {taken}, which "
                "leaves none for training",
                next_step="give more reviews of this label, or a smaller --val_size and --test_size",
            )
        chosen, surplus = balance_piles(piles, plan.balance, plan.max_train)
        return self.spread(chosen), [self.reviews[row] for row in surplus]

    def spread(self, piles: Sequence[Sequence[int]]) -> list[Review]:
        """Return the reviews of rows, with their labels spread evenly."""
        return [self.reviews[row] for row in spread_labels(piles, self.ranks)]


def split_reviews(
    reviews: Sequence[Review], labels: Sequence[str], plan: SplitPlan, groups: Sequence[int] | None = None
) -> tuple[Split, list[Review]]:
    """Split reviews of which no two share a text.

    In each part the labels are spread evenly: any first n rows hold the labels in the part's own proportions, so that
    a balanced part can be cut anywhere (LLaMA-Factory's `max_samples` takes the first rows). Where groups do not fit
    in the last places of a val or test part, it stays a little smaller than asked for.

    Args:
        reviews: cleaned reviews, all labelled.
        labels: the task's label names.
        plan: sizes and seed.
        groups: the group of near repeats of each review; None: every review is its own.

    Returns:
        The split, and the reviews that are in no part because the labels were balanced or `max_train` was reached.

    Raises:
        ConfigError: when the plan cannot be right.
        DataError: when there are too few reviews for it.
    """
    plan.check(len(labels))
    deck = Deck(reviews, labels, plan.seed, groups)
    sizes = deck.count_left()
    test_counts = count_by_label(plan.test_size, sizes, plan.eval_classes, "--test_size")
    val_counts = count_by_label(plan.val_size, sizes, plan.eval_classes, "--val_size")
    for label, (size, n_test, n_val) in enumerate(zip(sizes, test_counts, val_counts, strict=True)):
        if size - n_test - n_val < 1:
            raise DataError(
                f"There are {size} usable reviews with the label {labels[label]!r}; val takes {n_val} of them and "
                f"test {n_test}, which leaves none for training",
                next_step="give more reviews of this label, or a smaller --val_size and --test_size",
            )
    test = deck.spread(deck.sort_by_label(deck.deal(test_counts, "--test_size")))
    val = deck.spread(deck.sort_by_label(deck.deal(val_counts, "--val_size")))
    train, surplus = deck.deal_train(plan, sizes, "their near repeats stand in val and test")
    return Split(train, val, test), surplus


def count_by_label(size: float, sizes: Sequence[int], eval_classes: str, option: str) -> list[int]:
    """Return how many reviews of each label a val or test part takes.

    Raises:
        DataError: when that is none.
    """
    if size == 0:
        return [0] * len(sizes)
    wanted = int(size * sum(sizes)) if size < 1 else int(size)
    counts = [wanted // len(sizes)] * len(sizes) if eval_classes == BALANCED else share_out(wanted, sizes)
    if sum(counts) == 0:
        raise DataError(
            f"The size {size:g} of {sum(sizes)} usable reviews is less than one review of each label",
            where=option,
            next_step="give more reviews, a larger size, or 0 for no such part",
        )
    return counts
