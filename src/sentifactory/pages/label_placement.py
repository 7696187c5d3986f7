"""Places the labels of points in a picture so that they cover no other label, point or whisker.

The server does not know how wide the picture will be. It is enough to place the labels for the narrowest picture that
shows them: in a wider one they, and the points, take a smaller share of the width, and nothing new is covered.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

# In pixels, as the style sheet has them: of a label's letters, its height and distance from its point; of points.
_WIDE_CHAR, _NARROW_CHAR = 14.0, 8.2
_LABEL_HEIGHT = 22.0
_GAP = 11.0
_POINT_RADIUS = 8.0
_WHISKER_RADIUS = 3.0
_STEP = 2.0  # between the heights that are tried


class Box(NamedTuple):
    """A rectangle in pixels; `low` and `high` count from the bottom."""

    left: float
    right: float
    low: float
    high: float

    def overlap(self, other: Box) -> float:
        """Return the area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.high, other.high) - max(self.low, other.low)
        return max(0.0, width) * max(0.0, height)


@dataclass(frozen=True, slots=True)
class LabelledPoint:
    """A point with its whisker, in per cent of the picture, and the width of its label in pixels."""

    x: float
    y: float
    low: float
    high: float
    label_width: float


@dataclass(frozen=True, slots=True)
class LabelPlace:
    """Where a label is: on the left of its point or on the right, and at which height in per cent."""

    is_left: bool
    y: float


def estimate_width(text: str) -> float:
    """Return about how many pixels a label is wide; characters of Chinese are as wide as they are high.

    Example:
        >>> round(estimate_width("冻结 AB"), 1)
        52.6
    """
    return sum(_WIDE_CHAR if unicodedata.east_asian_width(char) in "WF" else _NARROW_CHAR for char in text)


def place_labels(
    points: Sequence[LabelledPoint], size: tuple[float, float], line: float | None = None
) -> list[LabelPlace]:
    """Return the place of each point's label: the nearest to the point that covers nothing else.

    Where every place covers something, that which covers least.

    Args:
        points: in the order in which they choose.
        size: width and height of the narrowest picture that shows the labels, in pixels.
        line: height of a horizontal line, in per cent, that no label should cover either.
    """
    width, height = size
    marks = [_list_marks(point, size) for point in points]
    fixed = [] if line is None else [Box(0, width, line * height / 100 - 2, line * height / 100 + 2)]
    labels: list[Box] = []
    places = []
    for number, point in enumerate(points):
        others = [mark for at, own in enumerate(marks) if at != number for mark in own]
        best: tuple[float, float, LabelPlace, Box] | None = None
        for is_left in (False, True):
            for middle in _list_heights(point.y * height / 100, height):
                box = _make_label(point, is_left, middle, width)
                outside = max(0.0, -box.left) + max(0.0, box.right - width)
                cost = outside * _LABEL_HEIGHT + sum(box.overlap(one) for one in (*others, *labels, *fixed))
                distance = abs(middle - point.y * height / 100)
                if best is None or (cost, distance) < best[:2]:
                    best = cost, distance, LabelPlace(is_left, round(100 * middle / height, 2)), box
        assert best is not None  # noqa: S101 - there are heights
        places.append(best[2])
        labels.append(best[3])
    return places


def _list_heights(start: float, height: float) -> list[float]:
    """Return the heights to try, in pixels, from the bottom of the picture to its top."""
    steps = [start + _STEP * n for n in range(-int(height / _STEP), int(height / _STEP) + 1)]
    half = _LABEL_HEIGHT / 2
    return [one for one in steps if half <= one <= height - half] or [height / 2]


def _make_label(point: LabelledPoint, is_left: bool, middle: float, width: float) -> Box:
    """Return the box of a label from its point on: in a wider picture, what is between them would be covered."""
    x = point.x * width / 100
    reach = _GAP + point.label_width
    left, right = (x - reach, x - _WHISKER_RADIUS - 1) if is_left else (x + _WHISKER_RADIUS + 1, x + reach)
    return Box(left, right, middle - _LABEL_HEIGHT / 2, middle + _LABEL_HEIGHT / 2)


def _list_marks(point: LabelledPoint, size: tuple[float, float]) -> list[Box]:
    """Return the boxes of a point and of its whisker."""
    width, height = size
    x, y = point.x * width / 100, point.y * height / 100
    low, high = point.low * height / 100, point.high * height / 100
    return [
        Box(x - _POINT_RADIUS, x + _POINT_RADIUS, y - _POINT_RADIUS, y + _POINT_RADIUS),
        Box(x - _WHISKER_RADIUS, x + _WHISKER_RADIUS, low, high),
    ]
