"""The figures of probabilities as a whole: their values, their intervals, and what has none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sentifactory.metrics import probability_metrics as module
from sentifactory.metrics.bootstrap import bootstrap_weighted
from sentifactory.metrics.probability_metrics import (
    compute_probability_metrics,
    group_reviews,
    list_measures,
    score_probabilities,
    stack_probabilities,
)
from sentifactory.metrics.reliability import make_mass_edges
from sentifactory.records import Prediction


def draw(n: int, seed: int) -> tuple[list[int], np.ndarray]:
    dice = np.random.default_rng(seed)
    share = 1 / (1 + np.exp(-2 * dice.normal(size=n)))
    return (dice.random(n) < share).astype(int).tolist(), np.column_stack([1 - share, share])


def test_two_labels() -> None:
    truth, shares = draw(300, 1)
    figures = compute_probability_metrics(truth, shares, ("negative", "positive"))
    assert figures.roc_auc == pytest.approx(roc_auc_score(truth, shares[:, 1]))
    assert figures.classes[0].roc_auc == pytest.approx(figures.classes[1].roc_auc)
    assert figures.classes[0].average_precision != figures.classes[1].average_precision
    assert figures.intervals["roc_auc"].low < figures.roc_auc < figures.intervals["roc_auc"].high
    assert figures.intervals["brier"].low < figures.brier < figures.intervals["brier"].high
    assert not [name for name in figures.intervals if name.startswith("ece")]
    assert figures.abstentions[0].accuracy == np.mean(shares.argmax(axis=1) == truth)
    assert figures.abstentions[-1].answered == 150
    assert figures.abstentions[-1].accuracy > figures.abstentions[0].accuracy
    assert figures.curve[-1] == (1.0, pytest.approx(1 - figures.abstentions[0].accuracy, abs=1e-5))
    assert json.loads(json.dumps(figures.to_dict()))["bins_equal_mass"][0]["reviews"] == 20


def test_three_labels_are_averaged() -> None:
    dice = np.random.default_rng(2)
    shares = dice.dirichlet(np.ones(3), size=400)
    truth = [int(dice.choice(3, p=row)) for row in shares]
    figures = compute_probability_metrics(truth, shares, ("a", "b", "c"))
    assert figures.roc_auc == pytest.approx(roc_auc_score(truth, shares, multi_class="ovr", average="macro"))


def test_one_label_alone_has_no_ranking_but_the_rest() -> None:
    figures = compute_probability_metrics([1] * 40, np.tile([0.3, 0.7], (40, 1)), ("negative", "positive"))
    assert figures.roc_auc is None
    assert "roc_auc" not in figures.intervals
    assert figures.ece_equal_width == pytest.approx(0.3)


@pytest.mark.parametrize("shares", [np.ones((3, 2)), np.zeros((2, 3)), np.array([[1.5, -0.5], [0.5, 0.5]])])
def test_what_is_no_distribution_is_refused(shares: np.ndarray) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        compute_probability_metrics([0, 1], shares, ("a", "b"))


def test_predictions_of_words_alone_have_no_probabilities() -> None:
    assert stack_probabilities([Prediction(1), Prediction(0)]) is None
    assert stack_probabilities([]) is None
    assert score_probabilities([1, 0], [Prediction(1), Prediction(None)], ("a", "b")) is None
    assert stack_probabilities([Prediction(1, (0.2, 0.8))]).tolist() == [[0.2, 0.8]]  # type: ignore[union-attr]


def test_a_missing_answer_is_left_out_and_counted() -> None:
    truth, shares = draw(100, 7)
    answers = [Prediction(int(row.argmax()), tuple(map(float, row))) for row in shares]
    whole = score_probabilities(truth, answers, ("a", "b"))
    holed = [*answers[:50], Prediction(None), *answers[50:], Prediction(None)]
    figures = score_probabilities([*truth[:50], 1, *truth[50:], 0], holed, ("a", "b"))
    assert whole is not None
    assert figures is not None
    assert (whole.reviews, whole.n_missing) == (100, 0)
    assert (figures.reviews, figures.n_missing) == (100, 2)
    for name in ("roc_auc", "average_precision", "brier", "nll", "ece_equal_mass", "aurc", "intervals"):
        assert getattr(figures, name) == getattr(whole, name), name
    assert figures.bins_equal_mass == whole.bins_equal_mass
    everything = figures.abstentions[0]
    assert (everything.answered, everything.coverage) == (100, 100 / 102), "it is never decided"
    assert everything.accuracy == whole.abstentions[0].accuracy
    assert figures.curve[-1][0] == pytest.approx(100 / 102, abs=1e-4)
    half = figures.abstentions[5]
    assert half.answered >= 51, "half of all reviews, not of the answered ones"


def test_taking_like_reviews_together_moves_the_bounds_by_little(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, shares = draw(1500, 3)
    exact = compute_probability_metrics(truth, shares, ("a", "b")).intervals
    monkeypatch.setattr(module, "EXACT_REVIEWS", 100)
    rows, counts = group_reviews(np.array(truth), shares)
    assert len(rows) < 700
    assert counts.sum() == 1500
    grouped = compute_probability_metrics(truth, shares, ("a", "b")).intervals
    for name, interval in exact.items():
        width = interval.high - interval.low
        assert grouped[name].low == pytest.approx(interval.low, abs=0.12 * width), name
        assert grouped[name].high == pytest.approx(interval.high, abs=0.12 * width), name


@pytest.mark.slow
def test_the_interval_of_roc_auc_covers_as_often_as_it_claims() -> None:
    truth, shares = draw(200_000, 4)
    true_auc = roc_auc_score(truth, shares[:, 1])
    runs, covered = 200, 0
    for run in range(runs):
        some_truth, some = draw(200, 100 + run)
        measure = list_measures(np.array(some_truth), some, make_mass_edges(some.max(axis=1)))["roc_auc"]
        interval = bootstrap_weighted({"roc_auc": measure}, np.ones(200), seed=run, resamples=500)["roc_auc"]
        covered += interval.low <= true_auc <= interval.high
    assert covered / runs == pytest.approx(0.95, abs=3 * (0.95 * 0.05 / runs) ** 0.5)
