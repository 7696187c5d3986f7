"""Finds the texts that are in two parts of a data set: exact duplicates after normalisation, and near duplicates.

`text_keys` defines equal texts and `near_duplicates` near duplicates. Between training and test they are leaks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from sentifactory.corpus.cleaning.near_duplicates import find_near_pairs
from sentifactory.corpus.cleaning.text_keys import make_keys

EXACT = "exact"
NEAR = "near"


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two rows of two parts with the same text.

    Attributes:
        part: the earlier part, such as "train".
        row: the first row of that part with this text, from 0.
        other_part: the later part, such as "test".
        other_row: the row of that part, from 0.
        kind: `exact` (after normalisation) or `near`.
        similarity: 1 for `exact`, else 1 - edit distance / length of the normalised texts.
    """

    part: str
    row: int
    other_part: str
    other_row: int
    kind: str
    similarity: float


def find_overlaps(parts: Mapping[str, Sequence[str]]) -> list[Overlap]:
    """Return all pairs of rows of two different parts with the same text, exactly or nearly.

    Args:
        parts: texts by part, training first.

    Returns:
        In the order of the later part's rows.
    """
    rows_of = {name: _find_rows(texts) for name, texts in parts.items()}
    overlaps: list[Overlap] = []
    for part, other_part in combinations(rows_of, 2):
        for key in rows_of[part].keys() & rows_of[other_part].keys():
            overlaps += _list_overlaps(rows_of, (part, key), (other_part, key), EXACT, 1.0)
    overlaps += _find_near_overlaps(rows_of)
    places = {name: place for place, name in enumerate(parts)}
    return sorted(overlaps, key=lambda one: (places[one.other_part], one.other_row, places[one.part], one.row))


def _find_near_overlaps(rows_of: Mapping[str, Mapping[str, list[int]]]) -> Iterator[Overlap]:
    import numpy as np

    names = list(rows_of)
    masks: dict[str, int] = {}  # one bit for each part that holds the key
    for bit, name in enumerate(names):
        for key in rows_of[name]:
            masks[key] = masks.get(key, 0) | 1 << bit
    keys = list(masks)
    near = find_near_pairs(keys, np.fromiter(masks.values(), np.int64, len(keys)))
    for left, right, similarity in zip(near.left.tolist(), near.right.tolist(), near.similarity.tolist(), strict=True):
        one, other = keys[left], keys[right]
        for part, other_part in combinations(names, 2):
            for first, second in ((one, other), (other, one)):
                if first in rows_of[part] and second in rows_of[other_part]:
                    yield from _list_overlaps(rows_of, (part, first), (other_part, second), NEAR, similarity)


def _find_rows(texts: Sequence[str]) -> dict[str, list[int]]:
    """Return the rows of each comparison key, without blank texts."""
    rows: dict[str, list[int]] = {}
    for row, key in enumerate(make_keys(texts)):
        if key:
            rows.setdefault(key, []).append(row)
    return rows


def _list_overlaps(
    rows_of: Mapping[str, Mapping[str, list[int]]],
    one: tuple[str, str],
    other: tuple[str, str],
    kind: str,
    similarity: float,
) -> Iterator[Overlap]:
    first = rows_of[one[0]][one[1]][0]
    for row in rows_of[other[0]][other[1]]:
        yield Overlap(one[0], first, other[0], row, kind, similarity)
