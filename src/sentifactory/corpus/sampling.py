"""Which reviews are asked: a seeded sample with the file's own class shares."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from sentifactory.corpus.export import clean_as_trained
from sentifactory.corpus.readers import read_reviews
from sentifactory.errors import ConfigError, DataError
from sentifactory.records import Review
from sentifactory.task import Task


def read_labelled(path: str | Path, task: Task, limit: int | None = None) -> tuple[list[Review], int]:
    """Read a CSV file of labelled reviews, cleaned as for training, without the rows that have no text.

    Args:
        path: the file.
        task: says which labels there are.
        limit: only the first so many rows, as LLaMA-Factory's `max_samples` takes them; None for all.

    Returns:
        The reviews, and the number of rows that were left out.

    Raises:
        DataError: when the file cannot be used or no row of it holds a text.
    """
    rows = clean_as_trained(read_reviews(path, task)[:limit], path)
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
