"""From the rows of a source to distinct, clean reviews, each row accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sentifactory.corpus.cleaning import Reason, Rejected, clean_text
from sentifactory.corpus.gate_options import GateOptions
from sentifactory.corpus.keys import make_keys
from sentifactory.corpus.repeats import leave_out_repeats
from sentifactory.corpus.token_limit import limit_tokens
from sentifactory.records import Review
from sentifactory.task import Task


@dataclass(slots=True)
class Sifted:
    """Reviews that can be split, and what happened to the other rows.

    Attributes:
        kept: clean reviews.
        keys: the comparison key of each.
        rejected: rows that were left out.
        changes: changes of the cleaning, by kind.
        n_changed: rows that were changed.
        n_cut: rows that were cut to the limit of tokens.
    """

    kept: list[Review] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    changes: Counter[str] = field(default_factory=Counter)
    n_changed: int = 0
    n_cut: int = 0

    def add_up(self, other: Sifted) -> None:
        """Count in what happened to rows that are kept apart."""
        self.rejected += other.rejected
        self.changes.update(other.changes)
        self.n_changed += other.n_changed

    def describe_cleaning(self) -> dict[str, Any]:
        """Return the chapter of the manifest."""
        return {"changed_rows": self.n_changed, "changes": dict(sorted(self.changes.items())), "cut_rows": self.n_cut}


def sift_reviews(reviews: Sequence[Review], task: Task, options: GateOptions) -> Sifted:
    """Clean reviews, keep them within the limit of tokens, and leave out empty ones, repeats and contradictions."""
    sifted = clean_all(reviews)
    if options.max_tokens is not None and options.tokenizer is not None:
        limited = limit_tokens(sifted.kept, task, options.tokenizer, options.max_tokens, options.too_long)
        sifted.kept, sifted.n_cut = limited.kept, limited.n_cut
        sifted.rejected += limited.rejected
    keys = make_keys([review.text for review in sifted.kept])
    distinct = leave_out_repeats(sifted.kept, keys, task.labels, options.on_conflict)
    sifted.kept, sifted.keys = distinct.kept, distinct.keys
    sifted.rejected += distinct.rejected
    return sifted


def clean_all(reviews: Sequence[Review]) -> Sifted:
    """Clean the texts and leave out empty rows; repeats stay."""
    sifted = Sifted()
    for review in reviews:
        text, changes = clean_text(review.text)
        if changes:
            sifted.changes.update(changes)
            sifted.n_changed += 1
            review = Review(text, review.label, review.source, review.domain)
        if text:
            sifted.kept.append(review)
        else:
            sifted.rejected.append(Rejected(review, Reason.EMPTY))
    return sifted
