"""Takes a stratified sample of labelled reviews."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from sentifactory.errors import ConfigError
from sentifactory.records import Review


def take_sample(reviews: Sequence[Review], max_samples: int | None, seed: int) -> list[Review]:
    """Return at most `max_samples` reviews, in file order, stratified by label (method of largest remainders).

    Raises:
        ConfigError: when `max_samples` is below 1.
    """
    return [reviews[row] for row in sample_rows(reviews, max_samples, seed)]


def sample_rows(reviews: Sequence[Review], max_samples: int | None, seed: int) -> list[int]:
    """Return the rows of `take_sample`, ascending; raises the same."""
    if max_samples is None or max_samples >= len(reviews):
        return list(range(len(reviews)))
    if max_samples < 1:
        raise ConfigError(
            f"--max_samples is {max_samples}",
            expected="1 or more",
            next_step="leave it out to use every review",
            code="option-value",
        )
    rows_of: dict[int | None, list[int]] = defaultdict(list)
    for row, review in enumerate(reviews):
        rows_of[review.label].append(row)
    exact = {label: max_samples * len(rows) / len(reviews) for label, rows in rows_of.items()}
    counts = {label: int(share) for label, share in exact.items()}
    by_remainder = sorted(exact, key=lambda label: (counts[label] - exact[label], str(label)))
    for label in by_remainder[: max_samples - sum(counts.values())]:
        counts[label] += 1
    rng = random.Random(seed)  # noqa: S311 - a sample, not a secret
    chosen = [row for label in sorted(rows_of, key=str) for row in rng.sample(rows_of[label], counts[label])]
    return sorted(chosen)
