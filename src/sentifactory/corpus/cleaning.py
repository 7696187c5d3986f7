"""Leaves out the rows that would spoil training or a fair test, each with its reason. What stays is not rewritten.

Covered: empty rows, repeats (exact after normalisation) and texts that stand under two labels. Normalisation serves
comparison only. Not covered: near repeats, length limits.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from sentifactory.records import Review

_NOT_A_WORD = re.compile(r"[\W_]+")
_VARIATION_SELECTORS = range(0xFE00, 0xFE10)


class Reason(StrEnum):
    """Why a row is in none of the parts."""

    BROKEN_ROW = "broken row"  # cells too many or too few, quotes that do not match, no JSON, NUL bytes
    UNKNOWN_LABEL = "unknown label"
    NO_LABEL = "no label"
    MIDDLE_STARS = "middle stars"  # neither above nor below the stated threshold
    TOO_LONG = "too long"  # more tokens than the model that will be trained may see
    EMPTY = "empty"
    REPEAT = "repeat"
    BOTH_LABELS = "more than one label"
    SURPLUS = "surplus"  # nothing is wrong with it: left out to balance the classes or by the limit on training


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that was left out."""

    review: Review
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """All rows that came in, in two heaps."""

    kept: list[Review]
    rejected: list[Rejected]


@lru_cache(maxsize=65536)
def _keep_pictures(run: str) -> str:
    """Return what counts in a run of characters that are no words: emoji and other pictures, and combining marks."""
    return "".join(
        char
        for char in run
        if (category := unicodedata.category(char)) == "So"
        or (category[0] == "M" and ord(char) not in _VARIATION_SELECTORS)
    )


def normalise_text(text: str) -> str:
    """Return the form in which two texts are compared: NFKC, no case, no punctuation, no spaces.

    Emoji count, because they can be all the sentiment there is. A text of punctuation alone is compared by its
    punctuation, so that ":)" and ":(" differ. Only a blank text gives "".

    Example:
        >>> normalise_text("ＯＫ， 很好！！") == normalise_text("ok很好。")
        True
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    words = _NOT_A_WORD.sub(lambda run: _keep_pictures(run[0]), folded)
    if words:
        return unicodedata.normalize("NFKC", words)
    return "".join(char for char in folded if unicodedata.category(char)[0] not in "ZC")


def clean_reviews(reviews: Iterable[Review], labels: Sequence[str]) -> Cleaned:
    """Part reviews into those that stay and those that are left out; every review is in exactly one heap.

    The first of several repeats stays. Of a text that stands under two labels none stays: which one is right is not
    known.

    Args:
        reviews: the rows in the order of the file.
        labels: the task's label names, for the reasons.
    """
    groups: dict[str, list[Review]] = {}
    rejected: list[Rejected] = []
    for review in reviews:
        key = normalise_text(review.text)
        if key:
            groups.setdefault(key, []).append(review)
        else:
            rejected.append(Rejected(review, Reason.EMPTY))
    kept: list[Review] = []
    for group in groups.values():
        first = group[0]
        other = next((review for review in group if review.label != first.label), None)
        if other is None:
            kept.append(first)
            rejected += [Rejected(repeat, Reason.REPEAT, f"as {first.source}") for repeat in group[1:]]
            continue
        for review in group:
            against = other if review.label == first.label else first
            detail = f"{_name_label(against.label, labels)} in {against.source}"
            rejected.append(Rejected(review, Reason.BOTH_LABELS, detail))
    return Cleaned(kept, rejected)


def _name_label(label: int | None, labels: Sequence[str]) -> str:
    return "no label" if label is None else labels[label]


def clean_text(text: str) -> tuple[str, dict[str, int]]:
    """Return a review without what no reader sees or means, and how many changes of each kind that took.

    The second part is empty when nothing was changed.
    """
    stripped = text.strip()
    return stripped, {"outer whitespace": 1} if stripped != text else {}
