"""Parts reviews into train, val and test by the hash of seed and text.

A review's place depends on its text and the seed alone, not on the order of the file or the version of a random number
generator; a bigger val part never changes the test part. Covered: sizes by share or count, val and test balanced or
in the proportions of the file, balanced training. Not covered: groups, folds, domains.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sentifactory.errors import ConfigError, DataError
from sentifactory.records import Review, Split

BALANCED = "balanced"
STRATIFIED = "stratified"


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """How to split.

    Attributes:
        val_size: share of the reviews if below 1, else their number; 0 for no such part.
        test_size: the same.
        eval_classes: `balanced`: val and test hold as many of each label; `stratified`: as the file has them.
        max_train: most training reviews in all, or None for as many as there are. Training is always balanced.
        seed: another seed gives another split.
    """

    val_size: float
    test_size: float
    eval_classes: str = STRATIFIED
    max_train: int | None = None
    seed: int = 42

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


def split_reviews(reviews: Sequence[Review], labels: Sequence[str], plan: SplitPlan) -> tuple[Split, list[Review]]:
    """Split reviews of which no two share a text.

    In each part the labels are spread evenly: any first n rows hold the labels in the part's own proportions, so that
    a balanced part can be cut anywhere (LLaMA-Factory's `max_samples` takes the first rows).

    Args:
        reviews: cleaned reviews, all labelled.
        labels: the task's label names.
        plan: sizes and seed.

    Returns:
        The split, and the reviews that are in no part because the labels were balanced or `max_train` was reached.

    Raises:
        ConfigError: when the plan cannot be right.
        DataError: when there are too few reviews for it.
    """
    plan.check(len(labels))
    ranks = {review.text: _hash_text(review.text, plan.seed) for review in reviews}
    piles: list[list[Review]] = [[] for _ in labels]
    for review in reviews:
        if review.label is None:
            raise ValueError("a review without a label cannot be split")
        piles[review.label].append(review)
    for pile in piles:
        pile.sort(key=lambda review: ranks[review.text])
    sizes = [len(pile) for pile in piles]
    test_counts = _count_by_label(plan.test_size, sizes, plan.eval_classes, "--test_size")
    val_counts = _count_by_label(plan.val_size, sizes, plan.eval_classes, "--val_size")
    n_train = _count_train(sizes, test_counts, val_counts, labels, plan)

    parts: list[list[Review]] = [[], [], [], []]  # test, val, train, surplus
    for pile, n_test, n_val in zip(piles, test_counts, val_counts, strict=True):
        cuts = (0, n_test, n_test + n_val, n_test + n_val + n_train, len(pile))
        for part, start, end in zip(parts, cuts[:-1], cuts[1:], strict=True):
            part += pile[start:end]
    test, val, train, surplus = parts
    spread = [_spread_labels(part, len(labels), ranks) for part in (train, val, test)]
    return Split(*spread), surplus


def _hash_text(text: str, seed: int) -> bytes:
    """Return 16 bytes that order texts at random."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=str(seed).encode()).digest()


def _count_by_label(size: float, sizes: Sequence[int], eval_classes: str, option: str) -> list[int]:
    """Return how many reviews of each label a val or test part takes."""
    if size == 0:
        return [0] * len(sizes)
    wanted = int(size * sum(sizes)) if size < 1 else int(size)
    if eval_classes == BALANCED:
        counts = [wanted // len(sizes)] * len(sizes)
    else:
        # Largest remainders: the counts add up to what was asked for.
        shares = [wanted * n / max(sum(sizes), 1) for n in sizes]
        counts = [int(share) for share in shares]
        by_remainder = sorted(range(len(sizes)), key=lambda label: counts[label] - shares[label])
        for label in by_remainder[: wanted - sum(counts)]:
            counts[label] += 1
    if sum(counts) == 0:
        raise DataError(
            f"The size {size:g} of {sum(sizes)} usable reviews is less than one review of each label",
            where=option,
            next_step="give more reviews, a larger size, or 0 for no such part",
        )
    return counts


def _count_train(
    sizes: Sequence[int], test_counts: Sequence[int], val_counts: Sequence[int], labels: Sequence[str], plan: SplitPlan
) -> int:
    """Return the number of training reviews of each label.

    Raises:
        DataError: when a label has none left.
    """
    left = [size - test - val for size, test, val in zip(sizes, test_counts, val_counts, strict=True)]
    n_train = min(left)
    if n_train < 1:
        scarce = left.index(n_train)
        raise DataError(
            f"There are {sizes[scarce]} usable reviews with the label {labels[scarce]!r}; val takes "
            f"{val_counts[scarce]} of them and test {test_counts[scarce]}, which leaves none for training",
            next_step="give more reviews of this label, or a smaller --val_size and --test_size",
        )
    return n_train if plan.max_train is None else min(n_train, plan.max_train // len(labels))


def _spread_labels(part: Sequence[Review], n_labels: int, ranks: dict[str, bytes]) -> list[Review]:
    """Return a part in an order in which every beginning holds the labels in the part's own proportions.

    The i-th of n reviews of a label stands at (2i+1)/2n. Where all n are equal this gives blocks with one review of
    each label, in random order within the block: by bytes of the hash that did not choose the block.
    """
    totals = [sum(review.label == label for review in part) for label in range(n_labels)]
    seen = [0] * n_labels
    placed: list[tuple[float, bytes, Review]] = []
    for review in part:
        label = review.label or 0
        placed.append(((2 * seen[label] + 1) / (2 * totals[label]), ranks[review.text][8:], review))
        seen[label] += 1
    return [review for *_, review in sorted(placed, key=lambda item: item[:2])]
