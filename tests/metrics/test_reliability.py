"""Calibration figures against hand-worked examples, scikit-learn and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from sentifactory.metrics import reliability


def draw(n: int, n_labels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    dice = np.random.default_rng(seed)
    probabilities = dice.dirichlet(np.ones(n_labels), size=n)
    truth = np.array([dice.choice(n_labels, p=row) for row in probabilities])
    return truth, probabilities


def measure_ece(confidence: np.ndarray, is_right: np.ndarray, edges: np.ndarray) -> float:
    return float(reliability.weigh_ece(confidence, is_right, edges, np.ones((1, len(confidence))))[0])


def test_ece_by_hand() -> None:
    """Ten answers at 95%, 8 right; ten at 65%, 7 right: (10 * 0.15 + 10 * 0.05) / 20."""
    confidence = np.array([0.95] * 10 + [0.65] * 10)
    is_right = np.array([True] * 8 + [False] * 2 + [True] * 7 + [False] * 3)
    for edges in (reliability.make_width_edges(), reliability.make_mass_edges(confidence)):
        assert measure_ece(confidence, is_right, edges) == pytest.approx(0.1)


@pytest.mark.parametrize("n_labels", [2, 4])
def test_ece_against_a_plain_loop(n_labels: int) -> None:
    truth, probabilities = draw(500, n_labels, n_labels)
    answers, confidence = reliability.find_confidence(probabilities)
    is_right = answers == truth
    total = 0.0
    for lower in range(15):
        inside = (confidence > lower / 15) & (confidence <= (lower + 1) / 15)
        if inside.any():
            total += inside.sum() * abs(is_right[inside].mean() - confidence[inside].mean())
    edges = reliability.make_width_edges()
    assert measure_ece(confidence, is_right, edges) == pytest.approx(total / 500)


def test_the_bins_against_scikit_learn() -> None:
    truth, probabilities = draw(600, 2, 1)
    answers, confidence = reliability.find_confidence(probabilities)
    is_right = answers == truth
    shares, means = calibration_curve(is_right, confidence, n_bins=15, strategy="uniform")
    bins = reliability.list_bins(confidence, is_right, reliability.make_width_edges())
    assert [one.accuracy for one in bins] == pytest.approx(shares)
    assert [one.confidence for one in bins] == pytest.approx(means)
    assert sum(one.reviews for one in bins) == 600


def test_bins_of_equal_mass_hold_equally_many() -> None:
    _, probabilities = draw(600, 2, 2)
    confidence = probabilities.max(axis=1)
    bins = reliability.list_bins(confidence, confidence > 0, reliability.make_mass_edges(confidence))
    assert len(bins) == 15
    assert {one.reviews for one in bins} <= {39, 40, 41}


def test_equal_confidences_are_one_bin() -> None:
    confidence = np.full(50, 1.0)
    bins = reliability.list_bins(confidence, confidence > 0, reliability.make_mass_edges(confidence))
    assert [one.reviews for one in bins] == [50]


@pytest.mark.parametrize("n_labels", [2, 3])
def test_brier_and_likelihood_against_scikit_learn(n_labels: int) -> None:
    truth, probabilities = draw(400, n_labels, 5)
    labels = list(range(n_labels))
    if n_labels == 2:
        brier = reference.brier_score_loss(truth, probabilities[:, 1])
    else:
        brier = np.mean(((probabilities - np.eye(n_labels)[truth]) ** 2).sum(axis=1))
    assert reliability.list_brier(truth, probabilities).mean() == pytest.approx(brier)
    assert reliability.list_nll(truth, probabilities).mean() == pytest.approx(
        reference.log_loss(truth, probabilities, labels=labels)
    )


def test_a_probability_of_0_costs_much_but_not_everything() -> None:
    assert reliability.list_nll(np.array([0]), np.array([[0.0, 1.0]]))[0] == pytest.approx(27.63, abs=0.01)


def test_the_ece_by_chance_is_what_calibrated_models_show() -> None:
    """200 sets of reviews whose probabilities are exactly right: their mean ECE is the one foretold."""
    dice = np.random.default_rng(8)
    confidence = dice.uniform(0.5, 1, size=300)
    edges = reliability.make_mass_edges(confidence)
    seen = [measure_ece(confidence, dice.random(300) < confidence, edges) for _ in range(200)]
    foretold = reliability.expect_chance_ece(confidence, edges)
    assert foretold == pytest.approx(np.mean(seen), abs=4 * np.std(seen) / 200**0.5)
    assert foretold > 0.03
