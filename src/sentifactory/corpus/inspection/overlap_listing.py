"""Lists the duplicates within a data set and the leaks between its parts, exact and near, for display.

`text_keys` defines equal texts, `near_duplicates` near duplicates, and `overlap` finds both in two parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from sentifactory.corpus.cleaning.near_duplicates import NearPairs, find_near_pairs, join_groups
from sentifactory.corpus.cleaning.text_keys import make_keys
from sentifactory.corpus.inspection.display_text import describe_place, quote_text
from sentifactory.corpus.inspection.loaded_data import InspectedData
from sentifactory.corpus.leakage.overlap import EXACT, NEAR, find_overlaps
from sentifactory.records import Review

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GROUPS_SHOWN = 8
PLACES_SHOWN = 5
NEAR_SHOWN = 5
LEAKS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class DuplicateGroups:
    """Which reviews are duplicates or near duplicates of each other.

    Attributes:
        text_of: (n_reviews,) number of each review's text after normalisation; exact duplicates share it.
        group_of: (n_reviews,) number of each review's group of near duplicates; exact duplicates share it as well.
        firsts: the first review of each text.
        pairs: near duplicates among the texts.
    """

    text_of: NDArray[np.int64]
    group_of: NDArray[np.int64]
    firsts: list[int]
    pairs: NearPairs


def group_duplicates(texts: Sequence[str]) -> DuplicateGroups:
    """Group texts by exact and near duplicates."""
    import numpy as np

    numbers: dict[str, int] = {}
    firsts: list[int] = []
    text_of = np.empty(len(texts), np.int64)
    for position, key in enumerate(make_keys(texts)):
        text_of[position] = numbers.setdefault(key, len(numbers))
        if len(firsts) < len(numbers):
            firsts.append(position)
    pairs = find_near_pairs(list(numbers))
    return DuplicateGroups(text_of, join_groups(len(numbers), pairs)[text_of], firsts, pairs)


def describe_duplicates(data: InspectedData, groups: DuplicateGroups) -> dict[str, Any]:
    """Return how many rows are duplicates, and examples.

    Returns:
        `distinct` texts after normalisation; `repeated_rows`, the others; `contradicting_texts` with more than one
        label; `near_texts` that have a near duplicate; `groups` of duplicates, contradictions first, then the largest;
        `near_examples`, the most similar first.
    """
    import numpy as np

    reviews, parts = data.reviews(), data.part_of()
    rows_of: dict[int, list[int]] = {}
    for row, text in enumerate(groups.text_of.tolist()):
        rows_of.setdefault(text, []).append(row)
    several = [rows for rows in rows_of.values() if len(rows) > 1]
    several.sort(key=lambda rows: (not _is_contradiction(rows, reviews), -len(rows)))
    pairs = groups.pairs
    most_similar = np.argsort(-pairs.similarity, kind="stable")[:NEAR_SHOWN]
    return {
        "distinct": len(groups.firsts),
        "repeated_rows": sum(len(rows) - 1 for rows in several),
        "contradicting_texts": sum(_is_contradiction(rows, reviews) for rows in several),
        "near_texts": len(np.union1d(pairs.left, pairs.right)),
        "groups": [_describe_group(rows, reviews, parts, data.task.labels) for rows in several[:GROUPS_SHOWN]],
        "near_examples": [
            {
                "similarity": round(float(pairs.similarity[at]), 3),
                "one": _describe_row(groups.firsts[pairs.left[at]], reviews, parts, data.task.labels),
                "other": _describe_row(groups.firsts[pairs.right[at]], reviews, parts, data.task.labels),
            }
            for at in most_similar
        ],
    }


def describe_leaks(data: InspectedData) -> list[dict[str, Any]]:
    """Return, for each pair of parts, how many rows of the second are in the first: `exact`, or only `near`."""
    found = find_overlaps({part: [review.text for review in reviews] for part, reviews in data.parts.items()})
    reviews, parts = data.reviews(), data.part_of()
    starts = {part: parts.index(part) for part in data.parts if data.parts[part]}
    leaks = []
    for one, other in combinations(data.parts, 2):
        here = [leak for leak in found if (leak.part, leak.other_part) == (one, other)]
        exact = {leak.other_row for leak in here if leak.kind == EXACT}
        near = {leak.other_row for leak in here if leak.kind == NEAR} - exact
        here.sort(key=lambda leak: (leak.kind != EXACT, -leak.similarity, leak.other_row))
        examples = [
            {
                "kind": leak.kind,
                "similarity": round(leak.similarity, 3),
                "one": _describe_row(starts[one] + leak.row, reviews, parts, data.task.labels),
                "other": _describe_row(starts[other] + leak.other_row, reviews, parts, data.task.labels),
            }
            for leak in here[:LEAKS_SHOWN]
        ]
        leaks.append({"parts": [one, other], "exact": len(exact), "near": len(near), "examples": examples})
    return leaks


def _is_contradiction(rows: Sequence[int], reviews: Sequence[Review]) -> bool:
    return len({reviews[row].label for row in rows}) > 1


def _describe_row(row: int, reviews: Sequence[Review], parts: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    review = reviews[row]
    label = None if review.label is None else labels[review.label]
    return {"part": parts[row], "label": label, **describe_place(review), **quote_text(review.text)}


def _describe_group(
    rows: Sequence[int], reviews: Sequence[Review], parts: Sequence[str], labels: Sequence[str]
) -> dict[str, Any]:
    counts = Counter(reviews[row].label for row in rows)
    return {
        "rows": len(rows),
        "labels": {name: counts[label] for label, name in enumerate(labels) if counts[label]},
        "places": [{"part": parts[row], **describe_place(reviews[row])} for row in rows[:PLACES_SHOWN]],
        **quote_text(reviews[rows[0]].text),
    }
