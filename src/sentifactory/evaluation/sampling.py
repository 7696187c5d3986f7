"""Which reviews are asked: a seeded sample with the file's own class shares, and none that training has seen."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sentifactory.corpus.cleaning import normalise_text
from sentifactory.corpus.readers import read_reviews
from sentifactory.errors import ConfigError, DataError
from sentifactory.records import Review
from sentifactory.task import Task

EXAMPLES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Overlap:
    """A text that stands in the training reviews and in the test reviews, after normalisation."""

    train: Review
    test: Review


def read_labelled(path: str | Path, task: Task, limit: int | None = None) -> tuple[list[Review], int]:
    """Read a CSV file of labelled reviews, leaving out the rows without a text.

    Args:
        path: the file.
        task: says which labels there are.
        limit: only the first so many rows, as LLaMA-Factory's `max_samples` takes them; None for all.

    Returns:
        The reviews, and the number of rows that were left out.

    Raises:
        DataError: when the file cannot be used or no row of it holds a text.
    """
    rows = read_reviews(path, task)[:limit]
    reviews = [row for row in rows if row.text.strip() and row.label is not None]
    if not reviews:
        raise DataError("No row has a text", where=str(path), expected="at least one review under the header")
    return reviews, len(rows) - len(reviews)


def take_sample(reviews: Sequence[Review], max_samples: int | None, seed: int) -> list[Review]:
    """Return at most `max_samples` reviews, in file order, with the class shares of the whole.

    Each class gets its share of the places rounded down; the places left over go to the largest remainders.

    Raises:
        ConfigError: when `max_samples` is below 1.
    """
    if max_samples is None or max_samples >= len(reviews):
        return list(reviews)
    if max_samples < 1:
        raise ConfigError(
            f"--max_samples is {max_samples}", expected="1 or more", next_step="leave it out to use every review"
        )
    rows_of: dict[int | None, list[int]] = defaultdict(list)
    for row, review in enumerate(reviews):
        rows_of[review.label].append(row)
    exact = {label: max_samples * len(rows) / len(reviews) for label, rows in rows_of.items()}
    places = {label: int(share) for label, share in exact.items()}
    by_remainder = sorted(exact, key=lambda label: (places[label] - exact[label], str(label)))
    for label in by_remainder[: max_samples - sum(places.values())]:
        places[label] += 1
    dice = random.Random(seed)  # noqa: S311 - a sample, not a secret
    chosen = [row for label in sorted(rows_of, key=str) for row in dice.sample(rows_of[label], places[label])]
    return [reviews[row] for row in sorted(chosen)]


def find_overlaps(train: Sequence[Review], test: Sequence[Review]) -> list[Overlap]:
    """Return the test reviews whose text, normalised, stands in the training reviews too."""
    seen: dict[str, Review] = {}
    for review in train:
        seen.setdefault(normalise_text(review.text), review)
    keys = [normalise_text(review.text) for review in test]
    return [Overlap(seen[key], review) for key, review in zip(keys, test, strict=True) if key in seen]


def refuse_overlaps(overlaps: Sequence[Overlap], n_test: int, train_path: str, test_path: str) -> None:
    """Stop a comparison whose test reviews were seen in training.

    Raises:
        DataError: when there is any overlap.
    """
    if not overlaps:
        return
    pairs = "; ".join(f"{overlap.test.source} = {overlap.train.source}" for overlap in overlaps[:EXAMPLES_SHOWN])
    raise DataError(
        f"{len(overlaps)} of {n_test} test reviews stand in the training reviews {train_path} too ({pairs})",
        where=test_path,
        expected="test reviews that training has never seen",
        next_step="remove them from one of the two files, or pass --allow_overlap and have the report say so",
    )
