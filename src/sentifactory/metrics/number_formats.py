"""Formats shares, differences and p-values in the same way everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sentifactory.metrics.significance import Interval
from sentifactory.system.formats import DASH


def format_percent(share: float) -> str:
    """Return a share as a percentage with one decimal.

    Example:
        >>> format_percent(0.84666)
        '84.7%'
    """
    return f"{share * 100:.1f}%"


def format_points(difference: float) -> str:
    """Return a difference of shares in percentage points, with sign.

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
    """Return the p-value from the JSON values of a paired test, corrected if the test belongs to a family."""
    corrected = test["p_value_holm"]
    return float(test["p_value"] if corrected is None else corrected)


def read_paired_interval(test: Mapping[str, Any]) -> Interval:
    """Return the interval from the JSON values of a paired test, corrected if the test belongs to a family.

    Tests of earlier versions have an uncorrected one only.
    """
    return read_interval(test.get("interval_holm") or test["interval"])


def format_confidence(interval: Interval) -> str:
    """Return the confidence of an interval.

    Example:
        >>> format_confidence(Interval(0.1, 0.2)), format_confidence(Interval(0.1, 0.2, 1 - 0.05 / 6))
        ('95%', '99.2%')
    """
    return f"{interval.confidence * 100:.3g}%"


def format_p_value(p_value: float) -> str:
    """Return a p-value as text.

    Example:
        >>> format_p_value(0.00002), format_p_value(0.0412), format_p_value(0.84)
        ('p < 0.001', 'p = 0.041', 'p = 0.84')
    """
    if p_value < 0.001:
        return "p < 0.001"
    return f"p = {p_value:.3f}" if p_value < 0.1 else f"p = {p_value:.2f}"


def read_interval(values: Mapping[str, float]) -> Interval:
    """Return an interval from its JSON values."""
    return Interval(**values)


def format_speed(reviews_per_s: float | None) -> str:
    """Return reviews per second with three significant digits.

    Example:
        >>> format_speed(5.1234), format_speed(1234.5), format_speed(None)
        ('5.12', '1,234', '–')
    """
    if reviews_per_s is None:
        return DASH
    return f"{reviews_per_s:,.0f}" if reviews_per_s >= 100 else f"{reviews_per_s:.3g}"
