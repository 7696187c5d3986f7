"""Balances the labels of the training part: by down-sampling, up-sampling or class weights.

Val and test parts are never up-sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sentifactory.errors import ConfigError

DOWN = "down"
UP = "up"
NONE = "none"
WEIGHTS = "weights"
CLASS_WEIGHTS = "class_weights"  # the chapter of the manifest that `sentifactory train` reads
BALANCES = (DOWN, UP, NONE, WEIGHTS)


def check_balance(balance: str) -> None:
    """Raise a ConfigError for an unknown choice."""
    if balance not in BALANCES:
        raise ConfigError(
            f"The choice is {balance!r}", where="--balance", expected=", ".join(BALANCES), code="option-value"
        )


def balance_rows(
    rows_by_label: Sequence[Sequence[int]], balance: str, max_train: int | None
) -> tuple[list[list[int]], list[int]]:
    """Choose the training rows of each label.

    Args:
        rows_by_label: rows by label, in random order: the first ones are taken.
        balance: `down`: as many of each label as the rarest has; `up`: as many as the most frequent has, the rows of
            the others copied in turn; `none` and `weights`: all.
        max_train: most rows in total: equally many of each label, or in proportion for `none` and `weights`.

    Returns:
        The chosen rows by label, with the copies of `up`, and the rows that were not chosen.

    Example:
        >>> balance_rows([[4, 7], [1, 2, 3]], "up", None)
        ([[4, 7, 4], [1, 2, 3]], [])
    """
    check_balance(balance)
    sizes = [len(rows) for rows in rows_by_label]
    if balance in (DOWN, UP):
        wanted = min(sizes) if balance == DOWN else max(sizes)
        limit = wanted if max_train is None else min(wanted, max_train // len(rows_by_label))
        counts = [limit] * len(rows_by_label)
    elif max_train is None or max_train >= sum(sizes):
        counts = sizes
    else:
        counts = apportion(max_train, sizes)
    counted = list(zip(rows_by_label, counts, strict=True))
    chosen = [[rows[at % len(rows)] for at in range(count)] for rows, count in counted]
    left_out = [row for rows, count in counted for row in rows[count:]]
    return chosen, left_out


def apportion(wanted: int, sizes: Sequence[int]) -> list[int]:
    """Return counts in proportion to sizes that add up to `wanted`, by the method of largest remainders.

    Example:
        >>> apportion(5, [30, 70])
        [2, 3]
    """
    shares = [wanted * size / max(sum(sizes), 1) for size in sizes]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(sizes)), key=lambda place: counts[place] - shares[place])
    for place in by_remainder[: wanted - sum(counts)]:
        counts[place] += 1
    return counts


def compute_class_weights(counts: Mapping[str, int]) -> dict[str, float]:
    """Return a weight for each label: n / (number of labels * n of the label).

    The weights of all rows add up to the number of rows.

    Example:
        >>> compute_class_weights({"negative": 25, "positive": 75})
        {'negative': 2.0, 'positive': 0.666667}
    """
    total = sum(counts.values())
    return {label: round(total / (len(counts) * count), 6) if count else 0.0 for label, count in counts.items()}
