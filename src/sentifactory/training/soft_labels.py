"""The file in which a teacher's probabilities travel to the training of a student.

JSON lines: `text`, and `probabilities` by label name, so that the file says itself what its numbers mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sentifactory.atomic import open_atomic
from sentifactory.errors import DataError
from sentifactory.records import Prediction, Review
from sentifactory.task import Task

_MAY_MISS_ONE_BY = 1e-3


def write_soft_labels(path: Path, reviews: Sequence[Review], answers: Sequence[Prediction], task: Task) -> None:
    """Write the probabilities of each answer beside the text that it was given to.

    Raises:
        ValueError: when an answer has no probabilities.
        ConfigError: when the file cannot be written.
    """
    with open_atomic(path) as stream:
        for review, answer in zip(reviews, answers, strict=True):
            if answer.probabilities is None:
                raise ValueError("an answer without probabilities teaches nothing")
            shares = dict(zip(task.labels, answer.probabilities, strict=True))
            stream.write(json.dumps({"text": review.text, "probabilities": shares}, ensure_ascii=False) + "\n")


def read_soft_labels(path: Path, task: Task) -> dict[str, tuple[float, ...]]:
    """Return the probabilities (n_labels,) of each text, in the order of the file.

    Raises:
        DataError: when the file cannot be read, has no rows, or a row is not one of the task's labels.
    """
    found: dict[str, tuple[float, ...]] = {}
    try:
        with path.open(encoding="utf-8") as stream:
            for number, text, shares in _read_rows(stream):
                if sorted(shares) != sorted(task.labels):
                    raise DataError(
                        f"The labels are {', '.join(shares)}",
                        where=f"{path}, line {number}",
                        expected=f"those of the task {task.name}: {', '.join(task.labels)}",
                        next_step="name the task that the teacher was asked, or ask it again",
                    )
                found[text] = tuple(float(shares[label]) for label in task.labels)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"The soft labels cannot be read ({error})",
            where=str(path),
            expected="JSON lines with text and probabilities, as `sentifactory distill` writes them",
            next_step="make the file again",
        ) from error
    if not found:
        raise DataError("The file has no rows", where=str(path), next_step="make it with: sentifactory distill")
    return found


def _read_rows(lines: Iterable[str]) -> Iterator[tuple[int, str, dict[str, float]]]:
    """Yield number, text and shares of each line; what is no distribution raises ValueError."""
    for number, line in enumerate(lines, start=1):
        row = json.loads(line)
        text, shares = row["text"], row["probabilities"]
        total = math.fsum(shares.values())
        if not isinstance(text, str) or min(shares.values()) < 0 or not abs(total - 1) < _MAY_MISS_ONE_BY:
            raise ValueError(f"line {number}: no probabilities that sum to 1")
        yield number, text, shares
