"""Balances the labels of the training part: fewer of the frequent ones, copies of the rare ones, or weights.

Only training rows pass through here: a val or test part is never up-sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sentifactory.errors import ConfigError

DOWN = "down"
UP = "up"
NONE = "none"
WEIGHTS = "weights"
CLASS_WEIGHTS = "class_weights"  # the chapter of the manifest that training reads
BALANCES = (DOWN, UP, NONE, WEIGHTS)


def check_balance(balance: str) -> None:
    """Raise a ConfigError for a choice that there is not."""
    if balance not in BALANCES:
        raise ConfigError(f"The choice is {balance!r}", where="--balance", expected=", ".join(BALANCES))


def balance_piles(
    piles: Sequence[Sequence[int]], balance: str, max_train: int | None
) -> tuple[list[list[int]], list[int]]:
    """Choose the training rows of each label.

    Args:
        piles: rows by label, in random order: the first ones are taken.
        balance: `down`: as many of each label as the rarest has; `up`: as many as the most frequent has, the rows of
            the others taken again and again in turn; `none` and `weights`: all.
        max_train: most rows in all: as many of each label, or in proportion for `none` and `weights`.

    Returns:
        The chosen rows by label, with the copies of `up`, and the rows that were not chosen.

    Example:
        >>> balance_piles([[4, 7], [1, 2, 3]], "up", None)
        ([[4, 7, 4], [1, 2, 3]], [])
    """
    check_balance(balance)
    sizes = [len(pile) for pile in piles]
    if balance in (DOWN, UP):
        wanted = min(sizes) if balance == DOWN else max(sizes)
        limit = wanted if max_train is None else min(wanted, max_train // len(piles))
        counts = [limit] * len(piles)
    elif max_train is None or max_train >= sum(sizes):
        counts = sizes
    else:
        counts = share_out(max_train, sizes)
    chosen = [[pile[row % len(pile)] for row in range(count)] for pile, count in zip(piles, counts, strict=True)]
    left_out = [row for pile, count in zip(piles, counts, strict=True) for row in pile[count:]]
    return chosen, left_out


def share_out(wanted: int, sizes: Sequence[int]) -> list[int]:
    """Return `wanted` places shared out in proportion; largest remainders: they add up to what was asked for.

    Example:
        >>> share_out(5, [30, 70])
        [2, 3]
    """
    shares = [wanted * size / max(sum(sizes), 1) for size in sizes]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(sizes)), key=lambda place: counts[place] - shares[place])
    for place in by_remainder[: wanted - sum(counts)]:
        counts[place] += 1
    return counts


def compute_class_weights(counts: Mapping[str, int]) -> dict[str, float]:
    """Return a weight for each label, for the losses that take them: n / (labels * n of the label).

    The weights of all rows add up to the number of rows.

    Example:
        >>> compute_class_weights({"negative": 25, "positive": 75})
        {'negative': 2.0, 'positive': 0.666667}
    """
    total = sum(counts.values())
    return {label: round(total / (len(counts) * count), 6) if count else 0.0 for label, count in counts.items()}
