"""The words that go with mistakes. The lists of mistakes themselves stand in `mistake_files`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sentifactory.corpus.cleaning import normalise_text
from sentifactory.evaluation.significance import adjust_holm
from sentifactory.records import Prediction, Review

WORD_LENGTHS = (2, 3, 4)
MIN_WORD_REVIEWS = 5
WORDS_KEPT = 50
WORD_LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class WordMistakes:
    """A group of characters whose reviews are answered wrong more often than others.

    Attributes:
        word: 2 to 4 characters that stand in the reviews.
        reviews: number of reviews that hold it.
        wrong: how many of them were answered wrong.
        error_rate: the share of them.
        p_value: Fisher's exact test, one-sided, after Holm's correction for all the words that were looked at.
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
    """Return the words whose reviews are answered wrong more often than chance explains, the least likely first.

    Words are groups of 2 to 4 characters of the normalised text: no word list is needed, and none has to be right.
    A group that stands in exactly the reviews of a longer one is left out, and so is what Holm's correction does not
    leave significant.
    """
    import numpy as np
    from scipy.stats import hypergeom

    is_wrong = [prediction.label != review.label for review, prediction in zip(reviews, predictions, strict=True)]
    total, wrong = len(reviews), sum(is_wrong)
    words = _drop_parts(_list_word_rows(reviews))
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


def _drop_parts(rows_of: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Leave out each word that is part of a longer one with the very same reviews."""
    parts = {
        (word[start:end], rows)
        for word, rows in rows_of.items()
        for start in range(len(word))
        for end in range(start + 1, len(word) + 1)
        if end - start < len(word)
    }
    return {word: rows for word, rows in rows_of.items() if (word, rows) not in parts}
