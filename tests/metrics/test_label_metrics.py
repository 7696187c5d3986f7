"""The figures, against hand-worked examples and against scikit-learn."""

from __future__ import annotations

import json
import random

import pytest
from sklearn import metrics as reference

from sentifactory.metrics.label_metrics import compute_metrics

BINARY = ("negative", "positive")


def test_a_hand_worked_binary_example_with_unparsed_answers() -> None:
    """4 negative (2 right, 1 called positive, 1 unparsed) and 6 positive (3 right, 1 negative, 2 unparsed)."""
    truth = [0] * 4 + [1] * 6
    answers = [0, 0, 1, None, 1, 1, 1, 0, None, None]
    figures = compute_metrics(truth, answers, BINARY)
    assert figures.confusion == ((2, 1, 1), (1, 3, 2))
    assert (figures.reviews, figures.correct, figures.unparsed) == (10, 5, 3)
    assert figures.accuracy == 0.5
    assert figures.coverage == pytest.approx(0.7)
    assert figures.precision == pytest.approx(3 / 4)  # of 4 answers "positive", 3 are right
    assert figures.recall == pytest.approx(3 / 6)  # the 2 unparsed positives are missed
    assert figures.f1 == pytest.approx(2 * 0.75 * 0.5 / 1.25)
    negative = figures.classes[0]
    assert (negative.precision, negative.recall, negative.support) == (pytest.approx(2 / 3), pytest.approx(2 / 4), 4)
    assert figures.macro_recall == pytest.approx(0.5)
    assert figures.macro_precision == pytest.approx((2 / 3 + 3 / 4) / 2)


def test_an_unparsed_answer_is_never_better_than_a_wrong_one() -> None:
    truth = [0, 0, 1, 1]
    wrong = compute_metrics(truth, [0, 0, 1, 0], BINARY)
    unparsed = compute_metrics(truth, [0, 0, 1, None], BINARY)
    assert unparsed.accuracy == wrong.accuracy
    assert unparsed.recall == wrong.recall
    assert unparsed.coverage < wrong.coverage == 1.0


def test_nothing_parsed_at_all_scores_zero() -> None:
    figures = compute_metrics([0, 1, 1], [None, None, None], BINARY)
    assert (figures.accuracy, figures.precision, figures.recall, figures.f1) == (0, 0, 0, 0)
    assert figures.coverage == 0
    assert figures.confusion == ((0, 0, 1), (0, 0, 2))
    assert figures.accuracy_interval.low == 0


def test_one_class_of_truth_only() -> None:
    figures = compute_metrics([1, 1, 1], [1, 1, 0], BINARY)
    assert figures.confusion == ((0, 0, 0), (1, 2, 0))
    assert figures.precision == 1.0
    assert figures.recall == pytest.approx(2 / 3)


@pytest.mark.parametrize("n_labels", [2, 3, 5])
def test_against_scikit_learn(n_labels: int) -> None:
    dice = random.Random(n_labels)
    names = [f"label {i}" for i in range(n_labels)]
    truth = [dice.randrange(n_labels) for _ in range(400)]
    answers = [dice.choice([true, true, dice.randrange(n_labels), None]) for true in truth]
    figures = compute_metrics(truth, answers, names)
    given = [-1 if answer is None else answer for answer in answers]
    labels = list(range(n_labels))
    assert figures.accuracy == pytest.approx(reference.accuracy_score(truth, given))
    assert figures.macro_f1 == pytest.approx(
        reference.f1_score(truth, given, labels=labels, average="macro", zero_division=0)
    )
    one = n_labels - 1
    assert figures.classes[one].precision == pytest.approx(
        reference.precision_score([t == one for t in truth], [g == one for g in given])
    )
    assert figures.classes[one].recall == pytest.approx(
        reference.recall_score([t == one for t in truth], [g == one for g in given])
    )
    if n_labels == 2:
        assert figures.f1 == pytest.approx(reference.f1_score([t == 1 for t in truth], [g == 1 for g in given]))
    else:
        assert figures.f1 == figures.macro_f1
    assert sum(map(sum, figures.confusion)) == 400
    assert sum(row[-1] for row in figures.confusion) == answers.count(None)


@pytest.mark.parametrize(
    ("truth", "answers"),
    [([], []), ([0, 1], [0]), ([0, 2], [0, 1]), ([0, 1], [0, 2]), ([0, 1], [0, -1])],
)
def test_lists_that_cannot_be_compared_are_refused(truth: list[int], answers: list[int | None]) -> None:
    with pytest.raises(ValueError, match=r"expected|is not in"):
        compute_metrics(truth, answers, BINARY)


def test_the_figures_are_plain_json() -> None:
    figures = compute_metrics([0, 1], [0, None], BINARY).to_dict()
    again = json.loads(json.dumps(figures))
    assert again["accuracy_interval"]["confidence"] == 0.95
    assert again["confusion"] == [[1, 0, 0], [0, 0, 1]]
    assert again["classes"][1]["name"] == "positive"
