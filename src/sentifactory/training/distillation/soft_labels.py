"""Soft labels of a teacher: the file format, and the distillation loss that combines them with true labels.

The file is JSON lines with `text` and `probabilities` by label name. The loss follows Hinton, Vinyals and Dean,
"Distilling the Knowledge in a Neural Network" (2015): a temperature softens both distributions, so that the teacher's
less likely labels matter as well, and the loss is multiplied by the square of the temperature, which keeps its
gradients on the scale of those of the true labels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sentifactory.errors import DataError
from sentifactory.records import Prediction, Review
from sentifactory.system.atomic import open_atomic
from sentifactory.system.json_text import parse_json
from sentifactory.task.task import Task

NO_LABEL = -100
_SUM_TOLERANCE = 1e-3
# A confident teacher gives 0 to other labels, which has no logarithm.
_MIN_PROBABILITY = 1e-6


def compute_distill_loss(
    logits: Any,
    labels: Any,
    teacher: Any,
    *,
    temperature: float,
    weight: float,
    class_weights: Any = None,
    smoothing: float = 0.0,
) -> Any:
    """Return the mean loss of a batch.

    Rows with both kinds of label use the weighted sum; rows with one of them use only that.

    Args:
        logits: (B, n_labels) of the student.
        labels: (B,) true labels, `NO_LABEL` where there is none.
        teacher: (B, n_labels) probabilities of the teacher; zeros where it has none.
        temperature: above 0; 1 leaves the probabilities unchanged.
        weight: share of the teacher in the weighted sum, from 0 to 1.
        class_weights: (n_labels,) of the true labels, or None.
        smoothing: of the true labels.
    """
    import torch
    from torch.nn.functional import cross_entropy, kl_div, log_softmax

    has_label, has_teacher = labels != NO_LABEL, teacher.sum(dim=-1) > 0  # (B,)
    hard = cross_entropy(
        logits, labels, weight=class_weights, label_smoothing=smoothing, ignore_index=NO_LABEL, reduction="none"
    )  # (B,)
    soft_teacher = torch.softmax(teacher.clamp(min=_MIN_PROBABILITY).log() / temperature, dim=-1)
    student = log_softmax(logits / temperature, dim=-1)
    soft = kl_div(student, soft_teacher, reduction="none").sum(dim=-1) * temperature**2  # (B,)
    share = has_teacher.float() * torch.where(has_label, weight, 1.0)  # (B,) of the teacher
    return (share * soft + (1 - share) * has_label.float() * hard).mean()


def write_soft_labels(path: Path, reviews: Sequence[Review], answers: Sequence[Prediction], task: Task) -> None:
    """Write text and probabilities of each answer.

    Raises:
        ValueError: when an answer has no probabilities.
        ConfigError: when the file cannot be written.
    """
    with open_atomic(path) as stream:
        for review, answer in zip(reviews, answers, strict=True):
            if answer.probabilities is None:
                raise ValueError("an answer without probabilities is no soft label")
            probabilities = dict(zip(task.labels, answer.probabilities, strict=True))
            stream.write(json.dumps({"text": review.text, "probabilities": probabilities}, ensure_ascii=False) + "\n")


def read_soft_labels(path: Path, task: Task) -> dict[str, tuple[float, ...]]:
    """Return the probabilities (n_labels,) of each text, in the order of the file.

    Raises:
        DataError: when the file cannot be read, has no rows, or the labels of a row are not the task's.
    """
    found: dict[str, tuple[float, ...]] = {}
    try:
        with path.open(encoding="utf-8") as stream:
            for number, text, probabilities in _read_rows(stream):
                if sorted(probabilities) != sorted(task.labels):
                    raise DataError(
                        f"The labels are {', '.join(probabilities)}",
                        where=f"{path}, line {number}",
                        expected=f"those of the task {task.name}: {', '.join(task.labels)}",
                        next_step="name the task of the teacher, or run sentifactory distill again",
                    )
                found[text] = tuple(float(probabilities[label]) for label in task.labels)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"The soft labels cannot be read ({error})",
            where=str(path),
            expected="JSON lines with text and probabilities, as `sentifactory distill` writes them",
            next_step="create the file again",
        ) from error
    if not found:
        raise DataError("The file has no rows", where=str(path), next_step="create it with: sentifactory distill")
    return found


def _read_rows(lines: Iterable[str]) -> Iterator[tuple[int, str, dict[str, float]]]:
    """Yield number, text and probabilities of each line; raise ValueError where they are no distribution."""
    for number, line in enumerate(lines, start=1):
        row = parse_json(line)
        text, probabilities = row["text"], row["probabilities"]
        total = math.fsum(probabilities.values())
        if not isinstance(text, str) or min(probabilities.values()) < 0 or not abs(total - 1) < _SUM_TOLERANCE:
            raise ValueError(f"line {number}: the probabilities do not sum to 1")
        yield number, text, probabilities
