"""Groups of near duplicates among reviews, and their description for the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sentifactory.corpus.cleaning.near_duplicates import NearPairs, describe_rule, find_near_pairs, join_groups
from sentifactory.records import Review


class NearGroups:
    """Groups of near duplicates among reviews without exact duplicates.

    Attributes:
        pairs: the pairs that were found.
        numbers: the group of each review; a review without near duplicates is a group of its own.
    """

    def __init__(self, reviews: Sequence[Review], keys: Sequence[str]) -> None:
        self._reviews = reviews
        self.pairs = find_near_pairs(keys)
        self.numbers: list[int] = join_groups(len(reviews), self.pairs).tolist()

    def join(self, pairs: Sequence[tuple[Review, Review, float]]) -> None:
        """Merge the groups of each pair of reviews; the third element is their similarity."""
        import numpy as np

        place_of = {id(review): place for place, review in enumerate(self._reviews)}
        found = [(place_of[id(one)], place_of[id(other)]) for one, other, _ in pairs]
        places = np.array(found, np.int64).reshape(-1, 2)
        self.pairs = NearPairs(
            np.concatenate([self.pairs.left, places.min(axis=1)]),
            np.concatenate([self.pairs.right, places.max(axis=1)]),
            np.concatenate([self.pairs.similarity, np.array([similarity for *_, similarity in pairs])]),
        )
        self.numbers = join_groups(len(self._reviews), self.pairs).tolist()

    def describe(self, parts: Mapping[str, Sequence[Review]]) -> tuple[list[tuple[int, str, Review]], dict[str, Any]]:
        """Describe the groups of more than one review.

        Args:
            parts: reviews by part; a review in several parts is listed with the last one.

        Returns:
            Number of the group (from 0, in the order of the first review), part and review of each row; and the
            chapter of the manifest.
        """
        members: dict[int, list[Review]] = {}
        joined = {self.numbers[place] for place in {*self.pairs.left.tolist(), *self.pairs.right.tolist()}}
        for number, review in zip(self.numbers, self._reviews, strict=True):
            if number in joined:
                members.setdefault(number, []).append(review)
        grouped = {id(review) for group in members.values() for review in group}
        part_of = {id(review): part for part, reviews in parts.items() for review in reviews if id(review) in grouped}
        rows = [
            (number, part_of.get(id(review), ""), review)
            for number, group in enumerate(members.values())
            for review in group
        ]
        summary = {
            "rule": describe_rule(),
            "pairs": len(self.pairs.left),
            "groups": len(members),
            "rows": len(rows),
            "largest_group": max(map(len, members.values()), default=0),
            "groups_with_several_labels": sum(
                len({review.label for review in group}) > 1 for group in members.values()
            ),
        }
        return rows, summary
