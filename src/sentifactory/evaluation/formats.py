"""How shares, differences and p-values are written, everywhere alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sentifactory.evaluation.significance import Interval


def format_percent(share: float) -> str:
    """Return a share as a percentage with one decimal.

    Example:
        >>> format_percent(0.84666)
        '84.7%'
    """
    return f"{share * 100:.1f}%"


def format_points(difference: float) -> str:
    """Return a difference of shares in percentage points, with its sign.

    Example:
        >>> format_points(0.35), format_points(-0.012), format_points(0.0)
        ('+35.0', '-1.2', '0.0')
    """
    points = f"{difference * 100:+.1f}"
    return "0.0" if points in ("+0.0", "-0.0") else points


def format_range(interval: Interval, word: str) -> str:
    """Return an interval of a difference in percentage points.

    Example:
        >>> format_range(Interval(-0.012, 0.35), "to")
        '-1.2 to 35.0'
    """
    low, high = (format_points(bound).removeprefix("+") for bound in (interval.low, interval.high))
    return f"{low} {word} {high}"


def read_p_value(test: Mapping[str, Any]) -> float:
    """Return the p-value of a paired test as JSON has it, corrected where it belongs to a family."""
    corrected = test["p_value_holm"]
    return float(test["p_value"] if corrected is None else corrected)


def format_p_value(p_value: float) -> str:
    """Return a p-value as it is written in a sentence.

    Example:
        >>> format_p_value(0.00002), format_p_value(0.0412), format_p_value(0.84)
        ('p < 0.001', 'p = 0.041', 'p = 0.84')
    """
    if p_value < 0.001:
        return "p < 0.001"
    return f"p = {p_value:.3f}" if p_value < 0.1 else f"p = {p_value:.2f}"
