"""The order of reviews: random, by the hash of seed and text alone, or in batches of similar length.

In `order_by_batch` the reviews of a batch have similar lengths, so that little is computed on padding, and hold the
labels in the proportions of the whole, because a batch of one label biases the model towards that label. The order of
the batches is random. Samplers that group by length alone yield long batches first and short ones last, and do not
balance labels: in Chinese reviews length and label are correlated.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sentifactory.errors import ConfigError
from sentifactory.records import Review

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


# Reviews are sorted by length within windows of this many batches: the first rows of a file remain a random sample.
BATCHES_PER_WINDOW = 50


def rank_texts(reviews: Sequence[Review], seed: int) -> NDArray[np.uint64]:
    """Return (n, 2) random sort keys: 128 bits of a hash of seed and text, the high half first."""
    import numpy as np

    key = str(seed).encode()
    digests = b"".join(
        hashlib.blake2b(review.text.encode("utf-8", "surrogatepass"), digest_size=16, key=key).digest()
        for review in reviews
    )
    return np.frombuffer(digests, ">u8").reshape(-1, 2).astype(np.uint64)


def make_blocks(reviews: Sequence[Review], ranks: NDArray[np.uint64], groups: Sequence[int] | None) -> list[list[int]]:
    """Return the rows in random order, those of one group together.

    The smallest text of a group determines its position, so that larger groups are not more likely to come early.

    Args:
        reviews: the rows.
        ranks: from `rank_texts`.
        groups: the group of each row; None: each row is a group of its own.
    """
    import numpy as np

    order = np.lexsort((ranks[:, 1], ranks[:, 0])).tolist()
    if groups is None:
        return [[row] for row in order]
    blocks: dict[int, list[int]] = {}
    for row in order:
        blocks.setdefault(groups[row], []).append(row)
    leaders = [rows[0] if len(rows) == 1 else min(rows, key=lambda row: reviews[row].text) for rows in blocks.values()]
    by_leader = np.lexsort((ranks[leaders, 1], ranks[leaders, 0])).tolist() if leaders else []
    grouped = list(blocks.values())
    return [grouped[place] for place in by_leader]


def interleave_labels(rows_by_label: Sequence[Sequence[int]], ranks: NDArray[np.uint64]) -> list[int]:
    """Return rows in an order in which any first n rows hold the labels in the proportions of the whole.

    The i-th of n rows of a label gets the position (2i+1)/2n. Where all n are equal this gives blocks with one row of
    each label, in random order within the block: by the half of the hash that did not choose the block.

    Args:
        rows_by_label: rows by label; copies of a row are interleaved as well.
        ranks: from `rank_texts`.
    """
    import numpy as np

    rows, places = [np.empty(0, np.int64)], [np.empty(0)]
    for label_rows in rows_by_label:
        once = np.array(list(dict.fromkeys(label_rows)), np.int64)
        if not len(once):
            continue
        ranked = once[np.lexsort((ranks[once, 1], ranks[once, 0]))]
        n_times = -(-len(label_rows) // len(once))
        if n_times > 1:
            # Rows are copied in turn: the first ones occur once more than the others.
            last_round = set(label_rows[(n_times - 1) * len(once) :])
            tail = [row for row in ranked.tolist() if row in last_round]
            ranked = np.concatenate([*([ranked] * (n_times - 1)), np.array(tail, np.int64)])
        rows.append(ranked)
        places.append((2 * np.arange(len(ranked)) + 1) / (2 * len(ranked)))
    everything = np.concatenate(rows)
    return everything[np.lexsort((ranks[everything, 1], np.concatenate(places)))].tolist()


def check_batch_size(batch_size: int) -> None:
    """Raise a ConfigError for a negative size."""
    if batch_size < 0:
        raise ConfigError(
            f"The size is {batch_size}",
            where="--batch_size",
            expected="1 or more, or 0 for no batches",
            code="option-value",
        )


def order_by_batch(reviews: Sequence[Review], batch_size: int, seed: int) -> list[Review]:
    """Return the same reviews in batches of `batch_size`; an incomplete batch comes last in its window.

    Args:
        reviews: in random order, with their labels interleaved.
        batch_size: reviews in a batch.
        seed: of the order of batches.

    Example:
        >>> texts = [("好", 1), ("很差很差很差", 0), ("差", 0), ("很好很好很好", 1)]
        >>> reviews = [Review(text, label) for text, label in texts]
        >>> sorted("".join(sorted(one.text for one in order_by_batch(reviews, 2, 0)[at : at + 2])) for at in (0, 2))
        ['好差', '很好很好很好很差很差很差']
    """
    rng = random.Random(seed)  # noqa: S311 - an order, not a secret
    ordered: list[Review] = []
    n_window = BATCHES_PER_WINDOW * batch_size
    for start in range(0, len(reviews), n_window):
        rows = _sort_by_length(reviews[start : start + n_window])
        batches = [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]
        rest = [batches.pop()] if len(batches[-1]) < batch_size else []
        rng.shuffle(batches)
        ordered += [review for batch in [*batches, *rest] for review in batch]
    return ordered


def _sort_by_length(reviews: Sequence[Review]) -> list[Review]:
    """Return reviews by length, labels interleaved: the i-th of n of a label, by length, gets position (2i+1)/2n."""
    by_label: dict[int | None, list[Review]] = {}
    for review in reviews:
        by_label.setdefault(review.label, []).append(review)
    placed = [
        ((2 * place + 1) / (2 * len(same_label)), review)
        for same_label in by_label.values()
        for place, review in enumerate(sorted(same_label, key=lambda one: len(one.text)))
    ]
    return [review for _, review in sorted(placed, key=lambda one: one[0])]
