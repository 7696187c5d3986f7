"""Where a model is wrong: accuracy by domain and by length, and words that are frequent in its mistakes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sentifactory.clean_text import normalise_text
from sentifactory.metrics.significance import Interval, adjust_holm, compute_wilson_interval
from sentifactory.records import Prediction, Review

WORD_LENGTHS = (2, 3, 4)
MIN_WORD_REVIEWS = 5
WORDS_KEPT = 50
WORD_LEVEL = 0.05


# Upper ends of the length bands, in characters: a headline, a sentence or two, a paragraph, several.
LENGTH_ENDS = (20, 50, 100, 200, 400)


@dataclass(frozen=True, slots=True)
class GroupScores:
    """One group of reviews.

    Attributes:
        kind: `domain` or `length`.
        name: the domain, or the band in characters, such as `21-50`.
        reviews: number of reviews in the group.
        accuracy: share of right answers; an unparsed answer is wrong.
        interval: Wilson interval of the accuracy.
        macro_f1: mean F1 over the labels that occur in the group.
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
    """Return the rows of every group under (kind, name): domains from large to small, then lengths from short to long.

    Reviews without a domain are in no domain group.
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


@dataclass(frozen=True, slots=True)
class WordMistakes:
    """A character n-gram whose reviews are answered wrong more often than others.

    Attributes:
        word: 2 to 4 characters.
        reviews: number of reviews that contain it.
        wrong: how many of them were answered wrong.
        error_rate: the share of them.
        p_value: Fisher's exact test, one-sided, after Holm's correction for all the words that were tested.
    """

    word: str
    reviews: int
    wrong: int
    error_rate: float
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """Return the word as plain JSON values."""
        return asdict(self)


def find_words(reviews: Sequence[Review], predictions: Sequence[Prediction]) -> list[WordMistakes]:
    """Return the words whose reviews are answered wrong significantly more often, by ascending p-value.

    Words are character n-grams (2 to 4) of the normalised text, so no segmentation is needed. An n-gram that occurs in
    exactly the reviews of a longer one is left out; p-values are corrected by Holm.
    """
    import numpy as np
    from scipy.stats import hypergeom

    is_wrong = [prediction.label != review.label for review, prediction in zip(reviews, predictions, strict=True)]
    total, wrong = len(reviews), sum(is_wrong)
    words = _drop_substrings(_list_word_rows(reviews))
    if not words or wrong == 0:
        return []
    held = np.array([len(rows) for rows in words.values()])
    missed = np.array([sum(is_wrong[row] for row in rows) for rows in words.values()])
    p_values = hypergeom.sf(missed - 1, total, wrong, held)
    order = np.argsort(p_values, kind="stable")
    corrected = adjust_holm(p_values)[order]
    names = list(words)
    return [
        WordMistakes(
            names[index], int(held[index]), int(missed[index]), float(missed[index] / held[index]), float(p_value)
        )
        for index, p_value in zip(order[:WORDS_KEPT], corrected[:WORDS_KEPT], strict=True)
        if p_value < WORD_LEVEL
    ]


def _list_word_rows(reviews: Sequence[Review]) -> dict[str, tuple[int, ...]]:
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, review in enumerate(reviews):
        text = normalise_text(review.text)
        words = {text[start : start + n] for n in WORD_LENGTHS for start in range(len(text) - n + 1)}
        for word in words:
            rows_of[word].append(row)
    return {word: tuple(rows) for word, rows in sorted(rows_of.items()) if len(rows) >= MIN_WORD_REVIEWS}


def _drop_substrings(rows_of: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Drop each word that is part of a longer one with exactly the same reviews."""
    parts = {
        (word[start:end], rows)
        for word, rows in rows_of.items()
        for start in range(len(word))
        for end in range(start + 1, len(word) + 1)
        if end - start < len(word)
    }
    return {word: rows for word, rows in rows_of.items() if (word, rows) not in parts}
