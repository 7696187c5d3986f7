"""Where a model is good and where not: accuracy by domain and by length of the review."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sentifactory.evaluation.significance import Interval, compute_wilson_interval
from sentifactory.records import Prediction, Review

# Upper ends of the length bands, in characters: a headline, a sentence or two, a paragraph, several.
LENGTH_ENDS = (20, 50, 100, 200, 400)


@dataclass(frozen=True, slots=True)
class GroupScores:
    """One group of reviews.

    Attributes:
        kind: `domain` or `length`.
        name: the domain, or the band in characters, such as `21-50`.
        reviews: number of reviews in the group.
        accuracy: share of right answers, an unparsed one being wrong.
        interval: Wilson interval of the accuracy.
        macro_f1: mean F1 over the labels that the group has.
        coverage: share of parsed answers.
    """

    kind: str
    name: str
    reviews: int
    accuracy: float
    interval: Interval
    macro_f1: float
    coverage: float

    def to_dict(self) -> dict[str, Any]:
        """Return the group as plain JSON values."""
        return asdict(self)


def name_length(text: str) -> str:
    """Return the length band of a review.

    Example:
        >>> name_length("很好"), name_length("好" * 21), name_length("好" * 500)
        ('1-20', '21-50', '>400')
    """
    start = 1
    for end in LENGTH_ENDS:
        if len(text) <= end:
            return f"{start}-{end}"
        start = end + 1
    return f">{LENGTH_ENDS[-1]}"


def list_groups(reviews: Sequence[Review]) -> dict[tuple[str, str], list[int]]:
    """Return the rows of every group under (kind, name): domains in order of size, then lengths from short to long.

    Reviews that name no domain are in no domain group.
    """
    by_domain: dict[str, list[int]] = {}
    by_length: dict[str, list[int]] = {}
    for row, review in enumerate(reviews):
        if review.domain is not None:
            by_domain.setdefault(review.domain, []).append(row)
        by_length.setdefault(name_length(review.text), []).append(row)
    groups = {("domain", name): rows for name, rows in sorted(by_domain.items(), key=lambda item: -len(item[1]))}
    bands = [name_length("x" * length) for length in (*LENGTH_ENDS, LENGTH_ENDS[-1] + 1)]
    return groups | {("length", name): by_length[name] for name in bands if name in by_length}


def score_groups(reviews: Sequence[Review], predictions: Sequence[Prediction]) -> list[GroupScores]:
    """Return the scores of every group of reviews."""
    from sklearn.metrics import f1_score

    found = []
    for (kind, name), rows in list_groups(reviews).items():
        truth = [-1 if (label := reviews[row].label) is None else label for row in rows]
        given = [-2 if (answer := predictions[row].label) is None else answer for row in rows]
        correct = sum(true == answer for true, answer in zip(truth, given, strict=True))
        found.append(
            GroupScores(
                kind,
                name,
                len(rows),
                correct / len(rows),
                compute_wilson_interval(correct, len(rows)),
                float(f1_score(truth, given, labels=sorted(set(truth)), average="macro", zero_division=0)),
                1 - given.count(-2) / len(rows),
            )
        )
    return found
