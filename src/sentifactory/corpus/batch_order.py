"""Orders training reviews so that any trainer that takes them as they come gets batches that are good to learn from.

Within a batch the reviews are of like length (little is computed on padding) and hold the labels in the whole's own
proportions (a batch of one label teaches that everything has that label); from batch to batch the length changes at
random. Samplers that group by length alone give long batches first and short ones last, with labels as they fall: in
Chinese reviews length and label go together.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from sentifactory.errors import ConfigError
from sentifactory.records import Review

# Reviews are sorted by length within so many batches: a beginning of the file stays a random sample of it.
BATCHES_TOGETHER = 50


def check_batch_size(batch_size: int) -> None:
    """Raise a ConfigError for a size that cannot be."""
    if batch_size < 0:
        raise ConfigError(f"The size is {batch_size}", where="--batch_size", expected="1 or more, or 0 for no batches")


def order_by_batch(reviews: Sequence[Review], batch_size: int, seed: int) -> list[Review]:
    """Return the same reviews, in batches of `batch_size`; where they do not fill the last one, it stands at the end.

    Args:
        reviews: in random order, with their labels spread evenly.
        batch_size: reviews in a batch.
        seed: of the order of batches.

    Example:
        >>> texts = [("好", 1), ("很差很差很差", 0), ("差", 0), ("很好很好很好", 1)]
        >>> reviews = [Review(text, label) for text, label in texts]
        >>> sorted("".join(sorted(one.text for one in order_by_batch(reviews, 2, 0)[at : at + 2])) for at in (0, 2))
        ['好差', '很好很好很好很差很差很差']
    """
    dice = random.Random(seed)  # noqa: S311 - an order, not a secret
    ordered: list[Review] = []
    together = BATCHES_TOGETHER * batch_size
    for start in range(0, len(reviews), together):
        rows = _sort_by_length(reviews[start : start + together])
        batches = [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]
        rest = [batches.pop()] if len(batches[-1]) < batch_size else []
        dice.shuffle(batches)
        ordered += [review for batch in [*batches, *rest] for review in batch]
    return ordered


def _sort_by_length(reviews: Sequence[Review]) -> list[Review]:
    """Return reviews by length, each label spread evenly: the i-th of n of a label, by length, stands at (2i+1)/2n."""
    piles: dict[int | None, list[Review]] = {}
    for review in reviews:
        piles.setdefault(review.label, []).append(review)
    placed = [
        ((2 * place + 1) / (2 * len(pile)), review)
        for pile in piles.values()
        for place, review in enumerate(sorted(pile, key=lambda one: len(one.text)))
    ]
    return [review for _, review in sorted(placed, key=lambda one: one[0])]
