"""Cleans reviews and drops duplicates: empty rows, repeated texts, and texts with two labels.

Two texts are the same if their comparison keys are equal. Near duplicates are kept: they are two reviews, whose labels
may even differ for good reason (one "不" more or less). The split keeps them in one part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sentifactory.clean_text import clean_text
from sentifactory.corpus.cleaning.text_keys import make_keys
from sentifactory.corpus.cleaning.token_limit import limit_tokens
from sentifactory.records import Reason, Rejected, Review
from sentifactory.task.task import Task

MAJORITY = "majority"


@dataclass(slots=True)
class CleanedReviews:
    """Clean reviews, and what happened to the other rows.

    Attributes:
        kept: the clean reviews.
        keys: the comparison key of each.
        rejected: rows that were left out.
        changes: number of changes by kind.
        n_changed: rows that cleaning changed.
        n_cut: rows that were cut to the token limit.
    """

    kept: list[Review] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    changes: Counter[str] = field(default_factory=Counter)
    n_changed: int = 0
    n_cut: int = 0

    def add_counts(self, other: CleanedReviews) -> None:
        """Add the rejected rows and the counts of other rows, but not their reviews."""
        self.rejected += other.rejected
        self.changes.update(other.changes)
        self.n_changed += other.n_changed

    def describe_cleaning(self) -> dict[str, Any]:
        """Return the chapter of the manifest on cleaning."""
        return {"changed_rows": self.n_changed, "changes": dict(sorted(self.changes.items())), "cut_rows": self.n_cut}


def clean_and_deduplicate(
    reviews: Sequence[Review],
    task: Task,
    *,
    on_conflict: str,
    max_tokens: int | None,
    tokenizer: str | None,
    too_long: str,
) -> CleanedReviews:
    """Clean reviews, apply the token limit, and drop empty rows, duplicates and texts with two labels."""
    cleaned = clean_reviews(reviews)
    if max_tokens is not None and tokenizer is not None:
        limited = limit_tokens(cleaned.kept, task, tokenizer, max_tokens, too_long)
        cleaned.kept, cleaned.n_cut = limited.kept, limited.n_cut
        cleaned.rejected += limited.rejected
    keys = make_keys([review.text for review in cleaned.kept])
    distinct = drop_duplicates(cleaned.kept, keys, task.labels, on_conflict)
    cleaned.kept, cleaned.keys = distinct.kept, distinct.keys
    cleaned.rejected += distinct.rejected
    return cleaned


def clean_reviews(reviews: Sequence[Review]) -> CleanedReviews:
    """Clean the texts and drop empty rows; duplicates stay."""
    cleaned = CleanedReviews()
    for review in reviews:
        text, changes = clean_text(review.text)
        if changes:
            cleaned.changes.update(changes)
            cleaned.n_changed += 1
            review = Review(text, review.label, review.source, review.domain)
        if text:
            cleaned.kept.append(review)
        else:
            cleaned.rejected.append(Rejected(review, Reason.EMPTY))
    return cleaned


@dataclass(frozen=True, slots=True)
class DistinctRows:
    """The rows without duplicates.

    Attributes:
        kept: rows of which no two have the same key.
        keys: the comparison key of each of them.
        rejected: all other rows, each with its reason.
    """

    kept: list[Review]
    keys: list[str]
    rejected: list[Rejected]


def drop_duplicates(
    reviews: Sequence[Review], keys: Sequence[str], labels: Sequence[str], on_conflict: str = "drop"
) -> DistinctRows:
    """Drop duplicates; every review is either kept or rejected.

    The first of several duplicates is kept. Of a text with two labels none is kept (`drop`), because it is not known
    which one is right; or the first row with the label that most of its rows have (`majority`), if there is one.

    Args:
        reviews: the rows in the order of the file.
        keys: the comparison key of each; "" for a blank text.
        labels: the task's label names, for the reasons.
        on_conflict: `drop` or `majority`.
    """
    first_of: dict[str, int] = {}
    more_of: dict[str, list[int]] = {}  # only of keys that occur more than once: most do not
    rejected: list[Rejected] = []
    for row, key in enumerate(keys):
        if not key:
            rejected.append(Rejected(reviews[row], Reason.EMPTY))
        elif first_of.setdefault(key, row) != row:
            more_of.setdefault(key, []).append(row)
    for key, more in more_of.items():
        group = [reviews[row] for row in (first_of[key], *more)]
        winner, losers = _resolve_group(group, labels, on_conflict)
        rejected += losers
        if winner is None:
            del first_of[key]
        else:
            first_of[key] = (first_of[key], *more)[winner]
    rows = sorted(first_of.values())
    return DistinctRows([reviews[row] for row in rows], [keys[row] for row in rows], rejected)


def _resolve_group(
    group: Sequence[Review], labels: Sequence[str], on_conflict: str
) -> tuple[int | None, list[Rejected]]:
    """Return which row of a group of duplicates is kept, if any, and the others with their reasons."""
    votes = Counter(review.label for review in group).most_common()
    is_resolved = len(votes) == 1 or (on_conflict == MAJORITY and votes[0][1] > votes[1][1])
    label = votes[0][0]
    winner = next(place for place, review in enumerate(group) if review.label == label) if is_resolved else None
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
