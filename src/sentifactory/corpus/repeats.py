"""Leaves out what says the same twice: empty rows, repeats, and texts that stand under two labels.

Which texts are the same is told by their comparison keys. Near repeats are not left out: they are two reviews, which
may even differ in their label for good reason (one "不" more or less); they only stay in one part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sentifactory.corpus.cleaning import Reason, Rejected
from sentifactory.records import Review

MAJORITY = "majority"


@dataclass(frozen=True, slots=True)
class Distinct:
    """All rows that came in, in two heaps.

    Attributes:
        kept: no two with the same key.
        keys: the comparison key of each of them.
        rejected: the others, each with its reason.
    """

    kept: list[Review]
    keys: list[str]
    rejected: list[Rejected]


def leave_out_repeats(
    reviews: Sequence[Review], keys: Sequence[str], labels: Sequence[str], on_conflict: str = "drop"
) -> Distinct:
    """Part reviews into those that stay and those that are left out; every review is in exactly one heap.

    The first of several repeats stays. Of a text that stands under two labels none stays (`drop`), because which one
    is right is not known; or the first row under the label that most of its rows have (`majority`), and none if there
    is no such label.

    Args:
        reviews: the rows in the order of the file.
        keys: the comparison key of each; "" for a blank text.
        labels: the task's label names, for the reasons.
        on_conflict: `drop` or `majority`.
    """
    first_of: dict[str, int] = {}
    more_of: dict[str, list[int]] = {}  # only of keys that stand more than once: most do not
    rejected: list[Rejected] = []
    for row, key in enumerate(keys):
        if not key:
            rejected.append(Rejected(reviews[row], Reason.EMPTY))
        elif first_of.setdefault(key, row) != row:
            more_of.setdefault(key, []).append(row)
    for key, more in more_of.items():
        group = [reviews[row] for row in (first_of[key], *more)]
        winner, losers = _settle(group, labels, on_conflict)
        rejected += losers
        if winner is None:
            del first_of[key]
        else:
            first_of[key] = (first_of[key], *more)[winner]
    rows = sorted(first_of.values())
    return Distinct([reviews[row] for row in rows], [keys[row] for row in rows], rejected)


def _settle(group: Sequence[Review], labels: Sequence[str], on_conflict: str) -> tuple[int | None, list[Rejected]]:
    """Return the place of the row of a group of repeats that stays, if one does, and the others with their reasons."""
    votes = Counter(review.label for review in group).most_common()
    is_settled = len(votes) == 1 or (on_conflict == MAJORITY and votes[0][1] > votes[1][1])
    label = votes[0][0]
    winner = next(place for place, review in enumerate(group) if review.label == label) if is_settled else None
    rejected = []
    for place, review in enumerate(group):
        if place == winner:
            continue
        if winner is not None and review.label == label:
            rejected.append(Rejected(review, Reason.REPEAT, f"as {group[winner].source}"))
        elif winner is not None:
            detail = f"{_name_label(label, labels)} in {votes[0][1]} of {len(group)} rows, as {group[winner].source}"
            rejected.append(Rejected(review, Reason.BOTH_LABELS, detail))
        else:
            other = next(one for one in group if one.label != review.label)
            detail = f"{_name_label(other.label, labels)} in {other.source}"
            rejected.append(Rejected(review, Reason.BOTH_LABELS, detail))
    return winner, rejected


def _name_label(label: int | None, labels: Sequence[str]) -> str:
    return "no label" if label is None else labels[label]
