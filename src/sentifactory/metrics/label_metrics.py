"""Metrics of answered labels against true labels: accuracy, precision, recall, F1, MCC, confusion matrix.

Scoring is strict: an unparsed answer is wrong. For recall it is a miss of the true class; precision ignores it; the
confusion matrix has a column for it. The metrics of the parsed answers only are given in addition. Metrics of
probabilities are in `probability_metrics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sentifactory.metrics.bootstrap import bootstrap_labels, score_tables
from sentifactory.metrics.significance import Interval, compute_wilson_interval


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Precision, recall and F1 of one class, from 0 to 1; `support` is the number of its reviews."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """The label metrics of one model on one set of reviews; shares are from 0 to 1.

    Attributes:
        reviews: number of reviews.
        correct: number of right answers.
        unparsed: number of replies that state no label.
        coverage: share of replies that state a label.
        accuracy: share of right answers among all reviews.
        accuracy_interval: Wilson interval of the accuracy.
        precision: with two labels that of the last one (the positive class), else the mean over classes.
        recall: likewise.
        f1: likewise.
        macro_precision: unweighted mean over classes.
        macro_recall: likewise.
        macro_f1: likewise.
        mcc: Matthews correlation, with unparsed as an additional answer that is never true; 0 is chance level.
        intervals: bootstrap interval of each metric from `precision` on, by name.
        classes: the scores of every class, in label order.
        confusion: (n_labels, n_labels + 1); rows are true labels, columns are answers, the last one unparsed.
        parsed_only: the metrics of the parsed answers only; None where all answers are parsed, or none.
    """

    reviews: int
    correct: int
    unparsed: int
    coverage: float
    accuracy: float
    accuracy_interval: Interval
    precision: float
    recall: float
    f1: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    mcc: float
    intervals: dict[str, Interval]
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    parsed_only: Metrics | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as plain JSON values."""
        return asdict(self)


def compute_metrics(
    truth: Sequence[int], answers: Sequence[int | None], labels: Sequence[str], *, seed: int = 0
) -> Metrics:
    """Return the metrics of a list of answers.

    Args:
        truth: (n_reviews,) true label indices.
        answers: (n_reviews,) answered label indices, None where the reply could not be parsed.
        labels: label names in index order.
        seed: seed of the bootstrap.

    Raises:
        ValueError: when the two lists differ in length, are empty, or hold an index that is no label.

    Example:
        >>> figures = compute_metrics([1, 1, 0, 0], [1, None, 0, 1], ["negative", "positive"])
        >>> figures.accuracy, figures.recall, figures.coverage, figures.confusion
        (0.5, 0.5, 0.75, ((1, 1, 0), (0, 1, 1)))
    """
    _check_indices(truth, answers, len(labels))
    figures = _score_answers(truth, answers, labels, seed)
    if figures.unparsed in (0, figures.reviews):
        return figures
    parsed = [(true, answer) for true, answer in zip(truth, answers, strict=True) if answer is not None]
    alone = _score_answers([true for true, _ in parsed], [answer for _, answer in parsed], labels, seed)
    return replace(figures, parsed_only=alone)


def _score_answers(truth: Sequence[int], answers: Sequence[int | None], labels: Sequence[str], seed: int) -> Metrics:
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    indices = list(range(len(labels)))
    unparsed_index = len(labels)
    given = [unparsed_index if answer is None else answer for answer in answers]
    confusion = confusion_matrix(truth, given, labels=[*indices, unparsed_index])[:-1]
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, given, labels=indices, average=None, zero_division=0
    )
    classes = tuple(
        ClassScores(name, float(precision[i]), float(recall[i]), float(f1[i]), int(support[i]))
        for i, name in enumerate(labels)
    )
    macro = [float(scores.mean()) for scores in (precision, recall, f1)]
    headline = [classes[1].precision, classes[1].recall, classes[1].f1] if len(labels) == 2 else macro
    correct = sum(int(confusion[i][i]) for i in indices)
    unparsed = given.count(unparsed_index)
    return Metrics(
        reviews=len(truth),
        correct=correct,
        unparsed=unparsed,
        coverage=1 - unparsed / len(truth),
        accuracy=correct / len(truth),
        accuracy_interval=compute_wilson_interval(correct, len(truth)),
        precision=headline[0],
        recall=headline[1],
        f1=headline[2],
        macro_precision=macro[0],
        macro_recall=macro[1],
        macro_f1=macro[2],
        mcc=float(score_tables(confusion[None])["mcc"][0]),
        intervals=bootstrap_labels(confusion, seed),
        classes=classes,
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


def _check_indices(truth: Sequence[int], answers: Sequence[int | None], n_labels: int) -> None:
    if not truth or len(truth) != len(answers):
        raise ValueError(f"{len(truth)} true labels and {len(answers)} answers: expected the same number, at least 1")
    for index in (*truth, *(answer for answer in answers if answer is not None)):
        if not 0 <= index < n_labels:
            raise ValueError(f"label index {index} is not in 0..{n_labels - 1}")
