"""Naming the best of several equal models: "wins" is claimed in at most 5 % of comparisons, whatever is chosen.

Equal models are drawn many times, with mistakes that go together or do not, and judged by the rule of the verdict.
"""

from __future__ import annotations

from contextlib import nullcontext
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, norm

from sentifactory.evaluation.scoring.scored_predictions import ComparedModel, ScoredPredictions
from sentifactory.evaluation.scoring.verdict import compare_pairs, decide_verdict
from sentifactory.metrics.label_metrics import compute_metrics
from sentifactory.metrics.significance import SIGNIFICANCE_LEVEL, adjust_holm, compute_mcnemar
from sentifactory.records import Prediction, Review

SIMULATIONS, REVIEWS, ACCURACY = 2000, 300, 0.8
COMPARED = ("majority", "base", "tuned", "tfidf")
MOST = 0.06  # 5 % and what 2,000 draws may miss it by


def draw_rights(n_models: int, shared: float, seed: int, n: int = SIMULATIONS) -> NDArray:
    """Return (n, n_models, REVIEWS) whether equal models are right; `shared` is how far their mistakes go together."""
    dice = np.random.default_rng(seed)
    common = dice.standard_normal((n, 1, REVIEWS))
    own = dice.standard_normal((n, n_models, REVIEWS))
    return np.sqrt(shared) * common + np.sqrt(1 - shared) * own < norm.ppf(ACCURACY)


def draw_twins(n_models: int, seed: int) -> NDArray:
    """Return the same with two models that nearly always agree, among others that do not."""
    rights = draw_rights(n_models, 0.0, seed)
    dice = np.random.default_rng(seed + 1)
    is_own = dice.random((SIMULATIONS, REVIEWS)) < 0.05
    rights[:, 1] = np.where(is_own, rights[:, 1], rights[:, 0])
    return rights


def compare_all(rights: NDArray) -> tuple[NDArray, NDArray]:
    """Return counts of right answers (n, n_models), and exact McNemar p-values (n, n_models, n_models)."""
    numbers = rights.astype(float)
    both = numbers @ numbers.transpose(0, 2, 1)
    right = np.einsum("sii->si", both)
    only_first, only_second = right[:, :, None] - both, right[:, None, :] - both
    least = np.minimum(only_first, only_second)
    return right, np.minimum(1, 2 * binom.cdf(least, only_first + only_second, 0.5))


def find_claims(rights: NDArray) -> NDArray:
    """Return (n,) whether the best is said to win: shown to be better than each other, in the family of all pairs."""
    right, p_values = compare_all(rights)
    n, n_models = right.shape
    pairs = list(combinations(range(n_models), 2))
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    adjusted = np.zeros_like(p_values)
    adjusted[:, first, second] = adjusted[:, second, first] = adjust_holm(p_values[:, first, second])
    best = right.argmax(axis=1)
    return adjusted[np.arange(n), best].max(axis=1) < SIGNIFICANCE_LEVEL


@pytest.mark.parametrize("shared", [0.0, 0.6], ids=["independent", "correlated"])
@pytest.mark.parametrize("n_models", [2, 3, 5, 8])
def test_the_best_of_equal_models_seldom_wins(n_models: int, shared: float) -> None:
    assert find_claims(draw_rights(n_models, shared, seed=n_models)).mean() <= MOST


@pytest.mark.parametrize("n_models", [3, 5])
def test_nor_does_one_of_twins(n_models: int) -> None:
    rights = draw_twins(n_models, seed=3)
    assert find_claims(rights).mean() <= MOST


@pytest.mark.parametrize("shared", [0.0, 0.6])
def test_any_false_claim_about_a_pair_is_as_seldom(shared: float) -> None:
    """Whatever pair the data choose: without the correction a false one is found far more often."""
    _, p_values = compare_all(draw_rights(5, shared, seed=11))
    rows, columns = np.triu_indices(5, 1)
    family = p_values[:, rows, columns]
    assert (family < SIGNIFICANCE_LEVEL).any(axis=1).mean() > 0.12
    assert (adjust_holm(family) < SIGNIFICANCE_LEVEL).any(axis=1).mean() <= MOST


def test_the_best_of_a_ladder_seldom_beats_its_reference() -> None:
    """The first of eight equal models is the reference; the best of the others is looked at."""
    right, p_values = compare_all(draw_rights(8, 0.3, seed=5))
    against = p_values[:, 0, 1:]
    best = right[:, 1:].argmax(axis=1)
    is_better = right[:, 1:].max(axis=1) > right[:, 0]
    rows = np.arange(len(best))
    assert (is_better & (against[rows, best] < SIGNIFICANCE_LEVEL)).mean() > 0.08, "as it was"
    assert (is_better & (adjust_holm(against)[rows, best] < SIGNIFICANCE_LEVEL)).mean() <= MOST


def test_a_model_that_is_better_is_still_found() -> None:
    rights = draw_rights(4, 0.3, seed=2, n=500)
    rights[:, 2] |= np.random.default_rng(9).random((500, REVIEWS)) < 0.6
    assert find_claims(rights).mean() > 0.9


@pytest.mark.slow
def test_the_verdict_decides_by_this_rule() -> None:
    """The simulation above and `decide_verdict` say the same, for equal models and for one that is better."""
    rights = draw_rights(4, 0.3, seed=8, n=24)
    rights[::2, 2] |= np.random.default_rng(1).random((12, REVIEWS)) < 0.5
    truth = [row % 2 for row in range(REVIEWS)]
    reviews = [Review(f"{row}", label) for row, label in enumerate(truth)]
    claims = find_claims(rights)
    assert 0 < claims.sum() < len(claims)
    for one, is_claimed in zip(rights, claims, strict=True):
        scored = {}
        for name, right in zip(COMPARED, one, strict=True):
            answers = [label if is_right else 1 - label for label, is_right in zip(truth, right, strict=True)]
            model = ComparedModel(name, name, "drawn", nullcontext)  # type: ignore[arg-type]
            metrics = compute_metrics(truth, answers, ["negative", "positive"])
            scored[name] = ScoredPredictions(model, tuple(map(Prediction, answers)), metrics)
        verdict = decide_verdict(scored, compare_pairs(scored, reviews))
        assert verdict.is_shown == is_claimed
        assert (" wins: " in verdict.headline.en) == is_claimed


def test_the_p_values_of_the_simulation_are_those_of_the_test() -> None:
    rights = draw_rights(2, 0.3, seed=4, n=20)
    _, p_values = compare_all(rights)
    for (first, second), found in zip(rights, p_values[:, 0, 1], strict=True):
        assert found == pytest.approx(compute_mcnemar(int((second & ~first).sum()), int((first & ~second).sum())))
