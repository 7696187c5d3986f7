"""Lengths of reviews in characters and tokens: statistics and a histogram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentifactory.corpus.cleaning.token_limit import load_tokenizer
from sentifactory.system.progress import show_progress

MAX_BINS = 30
# The longest 2 % of the reviews share one open bin, or the other bins would be too narrow.
OPEN_BIN_SHARE = 0.98
_BATCH = 1000


def describe_lengths(lengths: Sequence[int]) -> dict[str, float | int] | None:
    """Return statistics of lengths, None for an empty list; percentiles are lengths that occur (inverted CDF).

    Example:
        >>> describe_lengths([1, 2, 3, 10])["median"]
        2
    """
    import numpy as np

    if not lengths:
        return None
    values = np.asarray(lengths)
    median, p95, p99 = np.percentile(values, [50, 95, 99], method="inverted_cdf")
    return {
        "reviews": len(lengths),
        "min": int(values.min()),
        "median": int(median),
        "mean": round(float(values.mean()), 1),
        "p95": int(p95),
        "p99": int(p99),
        "max": int(values.max()),
    }


def choose_bin_width(limit: int) -> int:
    """Return the smallest width of the form 1, 2 or 5 times a power of ten that covers `limit` in MAX_BINS bins.

    Example:
        >>> choose_bin_width(290)
        10
    """
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power * MAX_BINS >= limit:
                return factor * power
        power *= 10


def build_histogram(lengths_by_label: Mapping[str, Sequence[int]]) -> dict[str, Any] | None:
    """Return counts by label in bins of equal width, the last of them open.

    Returns:
        `width`; `edges`, the lower edge of each bin; `counts`, by label one number per bin; None without reviews.
    """
    import numpy as np

    everything = np.sort(np.concatenate([np.asarray(values, dtype=int) for values in lengths_by_label.values()]))
    if not len(everything):
        return None
    limit = int(everything[min(int(len(everything) * OPEN_BIN_SHARE), len(everything) - 1)]) + 1
    width = choose_bin_width(limit)
    n_bins = -(-limit // width)
    edges = [width * n for n in range(n_bins)]
    # In a set of short reviews no review is longer than the closed bins, and an open bin would be empty.
    if int(everything[-1]) >= width * n_bins:
        edges.append(width * n_bins)
    counts = {
        label: np.bincount(
            np.minimum(np.asarray(values, dtype=int) // width, len(edges) - 1), minlength=len(edges)
        ).tolist()
        for label, values in lengths_by_label.items()
    }
    return {"width": width, "edges": edges, "is_last_open": len(edges) > n_bins, "counts": counts}


def count_tokens(texts: Sequence[str], tokenizer_folder: str | Path) -> list[int]:
    """Return the number of tokens of each text, special tokens not counted.

    Raises:
        ConfigError: when the folder holds no tokenizer.json that can be read.
    """
    tokenizer = load_tokenizer(Path(tokenizer_folder))
    lengths: list[int] = []
    with show_progress("counting tokens", len(texts), "reviews") as progress:
        for start in range(0, len(texts), _BATCH):
            batch = list(texts[start : start + _BATCH])
            lengths += [len(encoding.ids) for encoding in tokenizer.encode_batch(batch, add_special_tokens=False)]
            progress.advance(len(batch))
    return lengths
