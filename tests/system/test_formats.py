"""Numbers that follow each other are written as a span, in whatever order they come."""

from __future__ import annotations

import pytest

from sentifactory.system.formats import format_spans


@pytest.mark.parametrize(
    ("numbers", "words"),
    [([], ""), ([0], "0"), ([0, 1], "0-1"), ([5, 0, 2, 1], "0-2, 5"), ([3, 5], "3, 5"), ([12, 3, 13, 14], "3, 12-14")],
)
def test_numbers_are_written_as_spans(numbers: list[int], words: str) -> None:
    assert format_spans(numbers) == words
    assert format_spans(numbers, separator=",") == words.replace(", ", ",")
