"""How long single answers take, by the marks that are usual for it."""

from __future__ import annotations

from collections.abc import Sequence

SHARES = (50, 95, 99)


def mark_latencies(latencies: Sequence[float]) -> dict[str, float]:
    """Return what 50, 95 and 99 of 100 latencies do not exceed, by name and in their unit; between two in proportion.

    Example:
        >>> mark_latencies([0.1, 0.2, 0.3])["p50"]
        0.2
    """
    import numpy as np

    marks = np.quantile(latencies, [share / 100 for share in SHARES])
    return {f"p{share}": float(mark) for share, mark in zip(SHARES, marks, strict=True)}
