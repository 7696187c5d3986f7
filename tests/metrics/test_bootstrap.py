"""Bootstrap intervals: the figures against scikit-learn, the draws against a plain loop, and how often they cover."""

from __future__ import annotations

import random

import numpy as np
import pytest
from sklearn import metrics as reference

from sentifactory.metrics.bootstrap import (
    bootstrap_label_differences,
    bootstrap_labels,
    bootstrap_weighted,
    draw_tables,
    score_tables,
)


def draw_answers(n_labels: int, n: int, seed: int) -> tuple[list[int], list[int | None]]:
    dice = random.Random(seed)
    truth = [dice.randrange(n_labels) for _ in range(n)]
    return truth, [dice.choice([true, true, dice.randrange(n_labels), None]) for true in truth]


def tabulate(truth: list[int], answers: list[int | None], n_labels: int) -> np.ndarray:
    table = np.zeros((n_labels, n_labels + 1), dtype=int)
    for true, answer in zip(truth, answers, strict=True):
        table[true, n_labels if answer is None else answer] += 1
    return table


@pytest.mark.parametrize("n_labels", [2, 3, 5])
def test_the_figures_of_a_table_against_scikit_learn(n_labels: int) -> None:
    truth, answers = draw_answers(n_labels, 300, n_labels)
    given = [n_labels if answer is None else answer for answer in answers]
    figures = {name: values[0] for name, values in score_tables(tabulate(truth, answers, n_labels)[None]).items()}
    labels = list(range(n_labels))
    assert figures["accuracy"] == pytest.approx(reference.accuracy_score(truth, given))
    assert figures["mcc"] == pytest.approx(reference.matthews_corrcoef(truth, given))
    for name, score in (
        ("precision", reference.precision_score),
        ("recall", reference.recall_score),
        ("f1", reference.f1_score),
    ):
        scores = score(truth, given, labels=labels, average=None, zero_division=0)
        assert figures[f"macro_{name}"] == pytest.approx(scores.mean())
        assert figures[name] == pytest.approx(scores[1] if n_labels == 2 else scores.mean())


def test_figures_without_a_denominator_are_0() -> None:
    figures = score_tables(np.array([[[0, 0, 4], [0, 0, 6]]]))
    assert all(values[0] == 0 for values in figures.values())


def test_drawn_tables_keep_the_number_of_reviews_and_their_mean() -> None:
    table = np.array([[30, 10, 5], [5, 40, 10]])
    draws = draw_tables(table, seed=1, resamples=4000)
    assert (draws.sum(axis=(1, 2)) == 100).all()
    assert draws.mean(axis=0) == pytest.approx(table, abs=0.5)


def test_the_interval_is_that_of_reviews_drawn_one_by_one() -> None:
    """The textbook bootstrap, review by review, on the same answers: bounds agree within their Monte-Carlo error."""
    truth, answers = draw_answers(2, 150, 7)
    given = np.array([2 if answer is None else answer for answer in answers])
    dice = np.random.default_rng(0)
    values = []
    for _ in range(1500):
        rows = dice.integers(0, 150, 150)
        table = np.zeros((1, 2, 3), dtype=int)
        np.add.at(table[0], (np.array(truth)[rows], given[rows]), 1)
        values.append(score_tables(table)["macro_f1"][0])
    interval = bootstrap_labels(tabulate(truth, answers, 2).tolist())["macro_f1"]
    low, high = np.quantile(values, [0.025, 0.975])
    assert interval.low == pytest.approx(low, abs=0.012)
    assert interval.high == pytest.approx(high, abs=0.012)


def test_the_same_seed_gives_the_same_interval_and_another_one_nearly_so() -> None:
    table = [[80, 15, 5], [20, 70, 10]]
    first, again, other = (bootstrap_labels(table, seed=seed)["mcc"] for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first.low == pytest.approx(other.low, abs=0.02)


def test_a_model_does_not_differ_from_itself() -> None:
    truth, answers = draw_answers(3, 100, 3)
    for interval in bootstrap_label_differences(truth, answers, answers, 3).values():
        assert (interval.low, interval.high) == (0, 0)


def test_paired_draws_are_narrower_than_unpaired_ones() -> None:
    """Two models that stumble over the same reviews: their difference is known better than either accuracy."""
    dice = random.Random(1)
    truth = [dice.randrange(2) for _ in range(300)]
    first = [true if dice.random() < 0.8 else 1 - true for true in truth]
    second = [1 - one if row % 20 == 0 else one for row, one in enumerate(first)]
    paired = bootstrap_label_differences(truth, first, second, 2)["macro_f1"]
    single = bootstrap_labels(tabulate(truth, first, 2).tolist())["macro_f1"]
    assert paired.high - paired.low < single.high - single.low


def test_weights_and_cells_give_the_mean_of_reviews_drawn_again() -> None:
    values = np.random.default_rng(3).exponential(size=400)
    interval = bootstrap_weighted({"mean": lambda weights: weights @ values / weights.sum(axis=1)}, np.ones(400))
    spread = 1.96 * values.std() / 20  # the textbook interval of a mean
    assert interval["mean"].low == pytest.approx(values.mean() - spread, abs=0.02)
    assert interval["mean"].high == pytest.approx(values.mean() + spread, abs=0.02)
    grouped = bootstrap_weighted({"share": lambda weights: weights[:, 0] / weights.sum(axis=1)}, np.array([300, 100]))[
        "share"
    ]
    assert grouped.low == pytest.approx(0.75 - 1.96 * (0.75 * 0.25 / 400) ** 0.5, abs=0.005)


def test_the_interval_of_macro_f1_covers_as_often_as_it_claims() -> None:
    """300 samples of 250 reviews from a known table: 95% within Monte-Carlo error (three standard errors)."""
    shares = np.array([[0.40, 0.08, 0.02], [0.10, 0.37, 0.03]])
    truth = score_tables((shares * 100_000).round().astype(int)[None])["macro_f1"][0]
    dice = np.random.default_rng(11)
    runs, covered = 300, 0
    for run in range(runs):
        table = dice.multinomial(250, shares.ravel()).reshape(2, 3)
        interval = bootstrap_labels(table.tolist(), seed=run)["macro_f1"]
        covered += interval.low <= truth <= interval.high
    assert covered / runs == pytest.approx(0.95, abs=3 * (0.95 * 0.05 / runs) ** 0.5)
