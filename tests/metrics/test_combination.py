"""Combinations equal those of an independent implementation, and never flatter what they were fitted on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from sentifactory.metrics.combination import Combination, cross_fit, fit_combination
from sentifactory.metrics.reliability import list_nll


def draw(n: int, n_labels: int, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels of a known combination of two models, and the models' probabilities."""
    dice = np.random.default_rng(seed)
    shares = [softmax(dice.normal(scale=2, size=(n, n_labels)), axis=1) for _ in range(2)]
    scores = 0.5 * np.log(shares[0]) + 1.5 * np.log(shares[1]) + np.linspace(-0.5, 0.5, n_labels)
    truth = (softmax(scores, axis=1).cumsum(axis=1) < dice.random((n, 1))).sum(axis=1)
    return truth, shares


def test_two_labels_against_scikit_learn() -> None:
    truth, shares = draw(4000, 2, 1)
    found = fit_combination(truth, shares)
    odds = np.column_stack([np.log(own[:, 1] / own[:, 0]) for own in shares])
    peer = LogisticRegression(C=1e6).fit(odds, truth)
    assert found.weights == pytest.approx(peer.coef_[0], rel=0.01)
    assert found.bias[1] - found.bias[0] == pytest.approx(peer.intercept_[0], abs=0.01)


@pytest.mark.parametrize("n_labels", [3, 5])
def test_more_labels_find_the_weights_that_the_labels_were_drawn_by(n_labels: int) -> None:
    truth, shares = draw(20_000, n_labels, 2)
    found = fit_combination(truth, shares)
    assert found.weights == pytest.approx((0.5, 1.5), abs=0.08)
    bias = np.array(found.bias)
    assert bias - bias.mean() == pytest.approx(np.linspace(-0.5, 0.5, n_labels), abs=0.1)


def test_applying_is_the_softmax_of_the_weighted_sum() -> None:
    _, shares = draw(20, 3, 3)
    fitted = Combination((0.3, 1.2), (0.1, -0.4, 0.2))
    expected = softmax(0.3 * np.log(shares[0]) + 1.2 * np.log(shares[1]) + np.array(fitted.bias), axis=1)
    for row, wanted in enumerate(expected):
        assert fitted.apply([own[row].tolist() for own in shares]) == pytest.approx(wanted)
    assert sum(fitted.apply([(0.0, 1.0, 0.0), (1.0, 0.0, 0.0)])) == pytest.approx(1)


def test_a_model_that_contradicts_gets_no_weight() -> None:
    truth, shares = draw(2000, 2, 4)
    found = fit_combination(truth, [shares[1][:, ::-1], shares[1]])
    assert min(found.weights) >= 0
    noise = softmax(np.random.default_rng(5).normal(size=(2000, 2)), axis=1)
    assert fit_combination(truth, [noise, shares[1]]).weights[0] < 0.2


def test_a_cross_fit_is_honest_where_a_fit_on_few_reviews_is_not() -> None:
    seen, held = [], []
    for seed in range(20):
        truth, shares = draw(40, 2, 100 + seed)
        fitted = fit_combination(truth, shares)
        whole = np.array([fitted.apply([own[row].tolist() for own in shares]) for row in range(40)])
        seen.append(list_nll(truth, whole).mean())
        held.append(list_nll(truth, cross_fit(truth, shares)).mean())
    assert np.mean(held) > np.mean(seen)


def test_a_cross_fit_is_the_same_for_the_same_seed_and_scores_every_review() -> None:
    truth, shares = draw(60, 3, 6)
    truth[0] = 2
    once = cross_fit(truth, shares, 7)
    assert (once == cross_fit(truth, shares, 7)).all()
    assert (once != cross_fit(truth, shares, 8)).any()
    assert once.sum(axis=1) == pytest.approx(np.ones(60))


def test_reviews_told_apart_without_a_mistake_leave_finite_weights() -> None:
    truth = np.array([0, 1] * 20)
    sure = softmax(20.0 * np.eye(2)[truth], axis=1)
    found = fit_combination(truth, [sure, sure])
    assert all(0 < weight < 2 for weight in found.weights)
    assert np.isfinite(log_softmax(found.bias)).all()
