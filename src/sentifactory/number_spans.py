"""Whole numbers in short form, as people write pages: layers that train, cores that a process may use."""

from __future__ import annotations

from collections.abc import Iterable


def format_spans(numbers: Iterable[int], separator: str = ", ") -> str:
    """Return numbers in order, those that follow each other as a span.

    Example:
        >>> format_spans([3, 9, 5, 4]), format_spans([0, 1, 5], separator=",")
        ('3-5, 9', '0-1,5')
    """
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return separator.join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
