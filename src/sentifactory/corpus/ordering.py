"""Random order that hangs on text and seed alone: which rows are taken first, and how labels are spread in a part."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sentifactory.records import Review

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def rank_texts(reviews: Sequence[Review], seed: int) -> NDArray[np.uint64]:
    """Return (n, 2) numbers that order texts at random: 128 bits of a hash of seed and text, the high half first."""
    import numpy as np

    key = str(seed).encode()
    digests = b"".join(
        hashlib.blake2b(review.text.encode("utf-8", "surrogatepass"), digest_size=16, key=key).digest()
        for review in reviews
    )
    return np.frombuffer(digests, ">u8").reshape(-1, 2).astype(np.uint64)


def make_blocks(reviews: Sequence[Review], ranks: NDArray[np.uint64], groups: Sequence[int] | None) -> list[list[int]]:
    """Return the rows in random order, those of one group together.

    A group stands where the hash of its smallest text puts it: its size gives it no better chance of being early.

    Args:
        reviews: the rows.
        ranks: from `rank_texts`.
        groups: the group of each row; None: every row is its own.
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


def spread_labels(piles: Sequence[Sequence[int]], ranks: NDArray[np.uint64]) -> list[int]:
    """Return rows in an order in which every beginning holds the labels in the whole's own proportions.

    The i-th of n rows of a label stands at (2i+1)/2n. Where all n are equal this gives blocks with one row of each
    label, in random order within the block: by the half of the hash that did not choose the block.

    Args:
        piles: rows by label; a row that stands there more than once is spread as well.
        ranks: from `rank_texts`.
    """
    import numpy as np

    rows, places = [np.empty(0, np.int64)], [np.empty(0)]
    for pile in piles:
        once = np.array(list(dict.fromkeys(pile)), np.int64)
        if not len(once):
            continue
        ranked = once[np.lexsort((ranks[once, 1], ranks[once, 0]))]
        n_times = -(-len(pile) // len(once))
        if n_times > 1:
            # Copies go round: the first ones of the pile are those that come once more than the others.
            last_round = set(pile[(n_times - 1) * len(once) :])
            tail = [row for row in ranked.tolist() if row in last_round]
            ranked = np.concatenate([*([ranked] * (n_times - 1)), np.array(tail, np.int64)])
        rows.append(ranked)
        places.append((2 * np.arange(len(ranked)) + 1) / (2 * len(ranked)))
    everything = np.concatenate(rows)
    return everything[np.lexsort((ranks[everything, 1], np.concatenate(places)))].tolist()
