"""The estimated shares of labels are right within their intervals, and thin evidence is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from sentifactory.errors import ConfigError
from sentifactory.metrics.bias_correction import fit_bias_correction
from sentifactory.metrics.calibration import (
    BiasCorrection,
    Calibration,
    hash_prompt,
    load_calibration,
    save_calibration,
)
from sentifactory.metrics.prior_shift import (
    MIN_REVIEWS,
    PriorShift,
    adapt_calibration,
    estimate_shares,
    explain_thin,
)
from sentifactory.task.task import BINARY_SENTIMENT

SHIFTS = [
    ((0.5, 0.5), (0.24, 0.76)),
    ((0.5, 0.5), (0.67, 0.33)),
    ((0.3, 0.7), (0.7, 0.3)),
    ((0.4, 0.3, 0.3), (0.2, 0.2, 0.6)),
]


def draw(
    n: int, shares: tuple[float, ...], seed: int, *, separation: float = 1.4, is_exact: bool = False
) -> tuple[NDArray, NDArray]:
    """Labels, and probabilities of a model that is too sure and leans to the last label.

    Args:
        n: number of reviews.
        shares: of the labels.
        seed: of the draws.
        separation: how well the labels are told apart.
        is_exact: every label has its share exactly, as in a balanced file.
    """
    dice = np.random.default_rng(seed)
    n_labels = len(shares)
    truth = dice.choice(n_labels, size=n, p=shares)
    if is_exact:
        truth = np.repeat(np.arange(n_labels), (np.array(shares) * n).round().astype(int))
    scores = dice.normal(size=(len(truth), n_labels))
    scores[np.arange(len(truth)), truth] += separation
    scores = 2.5 * separation * scores + 0.4 * np.arange(n_labels)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return truth, powers / powers.sum(axis=1, keepdims=True)


def fit(truth: NDArray, probabilities: NDArray) -> BiasCorrection:
    found = fit_bias_correction(truth.tolist(), probabilities)
    assert found is not None
    return found


def test_the_correction_against_scikit_learn() -> None:
    truth, shares = draw(800, (0.4, 0.6), 1)
    odds = np.log(shares[:, 1] / shares[:, 0])[:, None]
    known = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(odds, truth)
    fitted = fit(truth, shares)
    assert 1 / fitted.temperature == pytest.approx(known.coef_[0, 0], rel=2e-3)
    assert (fitted.bias[0] - fitted.bias[1]) / fitted.temperature == pytest.approx(known.intercept_[0], abs=5e-3)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.1, 0.9), (0.2, 0.3, 0.5)])
def test_the_mean_probability_of_every_label_becomes_its_share(shares: tuple[float, ...]) -> None:
    truth, probabilities = draw(600, shares, 2)
    fitted = fit(truth, probabilities)
    corrected = np.array([fitted.apply(row) for row in probabilities])
    assert corrected.mean(axis=0) == pytest.approx(fitted.shares, abs=1e-6)


def test_perfectly_separated_labels_have_a_finite_correction() -> None:
    fitted = fit(np.array([0, 1] * 20), np.array([[0.9, 0.1], [0.1, 0.9]] * 20))
    assert np.isfinite(fitted.covariance).all()
    assert fitted.apply((0.1, 0.9))[1] > 0.99


def test_nothing_is_fitted_without_a_label_or_without_information() -> None:
    truth, shares = draw(200, (0.5, 0.5), 3)
    assert fit_bias_correction([1] * 200, shares) is None
    assert fit_bias_correction(truth.tolist(), np.full((200, 2), 0.5)) is None
    assert fit_bias_correction((1 - truth).tolist(), shares) is None, "surer answers are wrong more often"


@pytest.mark.parametrize(("n_rare", "is_fitted"), [(1, False), (9, False), (10, True)])
def test_a_label_of_a_few_validation_reviews_has_no_correction(n_rare: int, is_fitted: bool) -> None:
    truth, shares = draw(600, (0.4, 0.3, 0.3), 4)
    kept = np.concatenate([np.flatnonzero(truth < 2), np.flatnonzero(truth == 2)[:n_rare]])
    assert (fit_bias_correction(truth[kept].tolist(), shares[kept]) is not None) == is_fitted


@pytest.mark.slow
@pytest.mark.parametrize(("source", "target"), SHIFTS)
def test_the_interval_holds_the_true_share_in_nineteen_of_twenty_samples(
    source: tuple[float, ...], target: tuple[float, ...]
) -> None:
    """Over new validation reviews each time, whose own chance is part of the interval."""
    hits = []
    for seed in range(120):
        correction = fit(*draw(400, source, 2 * seed))
        found = estimate_shares(draw(1000, target, 2 * seed + 1)[1], correction)
        assert explain_thin(found) is None
        assert found.is_shown
        hits.append([one.low <= share <= one.high for one, share in zip(found.intervals, target, strict=True)])
    assert 0.88 < np.mean(hits) < 0.99


def test_without_a_shift_none_is_shown_more_often_than_chance() -> None:
    shown = []
    for seed in range(60):
        correction = fit(*draw(400, (0.5, 0.5), 2 * seed, is_exact=True))
        shown.append(estimate_shares(draw(600, (0.5, 0.5), 2 * seed + 1)[1], correction).is_shown)
    assert np.mean(shown) < 0.14


def test_the_order_of_the_reviews_changes_nothing() -> None:
    correction = fit(*draw(400, (0.5, 0.5), 4))
    shares = draw(700, (0.2, 0.8), 5)[1]
    first = estimate_shares(shares, correction)
    second = estimate_shares(shares[np.random.default_rng(0).permutation(700)], correction)
    assert second.shares == pytest.approx(first.shares, abs=1e-9)
    assert second.p_value == pytest.approx(first.p_value, rel=1e-6)


def test_renaming_the_labels_renames_the_shares() -> None:
    truth, shares = draw(500, (0.4, 0.3, 0.3), 6)
    others = draw(700, (0.2, 0.2, 0.6), 7)[1]
    first = estimate_shares(others, fit(truth, shares))
    second = estimate_shares(others[:, ::-1], fit(2 - truth, shares[:, ::-1]))
    assert second.shares[::-1] == pytest.approx(first.shares, abs=1e-6)
    assert [one.low for one in reversed(second.intervals)] == pytest.approx([one.low for one in first.intervals])


def test_adapted_answers_are_right_more_often() -> None:
    correction = fit(*draw(600, (0.5, 0.5), 8))
    truth, shares = draw(3000, (0.15, 0.85), 9)
    calibration = Calibration("temperature", 1.0, (0.0, 0.0), "t", "", None, 0.95, {}, {}, correction)
    adapted = adapt_calibration(calibration, estimate_shares(shares, correction).shares)
    after = np.array([adapted.apply(row) for row in shares])
    assert after.mean(axis=0) == pytest.approx(estimate_shares(shares, correction).shares, abs=1e-6)
    assert (after.argmax(axis=1) == truth).mean() > (shares.argmax(axis=1) == truth).mean() + 0.01


def test_thin_evidence_is_named() -> None:
    correction = fit(*draw(400, (0.5, 0.5), 10))
    few = estimate_shares(draw(MIN_REVIEWS - 1, (0.3, 0.7), 11)[1], correction)
    weak = estimate_shares(
        draw(1000, (0.3, 0.7), 12, separation=0.2)[1], fit(*draw(400, (0.5, 0.5), 13, separation=0.2))
    )
    absent = estimate_shares(np.full((500, 2), (1e-9, 1 - 1e-9)), correction)
    blind = estimate_shares(np.full((500, 2), 0.5), correction)
    assert all(explain_thin(one) is not None for one in (few, weak, absent, blind))
    sound = estimate_shares(draw(1000, (0.3, 0.7), 14)[1], correction)
    assert explain_thin(sound) is None
    assert explain_thin(replace(sound, has_converged=False)) is not None


def test_the_estimate_is_plain_json() -> None:
    found: PriorShift = estimate_shares(draw(200, (0.3, 0.7), 15)[1], fit(*draw(400, (0.5, 0.5), 16)))
    written = found.to_dict()
    assert set(written["intervals"][0]) == {"low", "high", "confidence"}
    assert written["is_shown"] is found.is_shown


def test_the_correction_is_saved_with_the_calibration_and_older_files_have_none(tmp_path: Path) -> None:
    correction = fit(*draw(400, (0.5, 0.5), 17))
    prompt = hash_prompt(BINARY_SENTIMENT)
    saved = Calibration("temperature", 1.5, (0.0, 0.0), "t", prompt, None, 0.95, {}, {}, correction)
    path = save_calibration(saved, tmp_path)
    assert load_calibration(tmp_path, BINARY_SENTIMENT) == saved
    content = json.loads(path.read_text(encoding="utf-8"))
    older = {key: value for key, value in content.items() if key != "bias_correction"}
    path.write_text(json.dumps(older), encoding="utf-8")
    assert load_calibration(tmp_path, BINARY_SENTIMENT) == replace(saved, bias_correction=None)
    for key, value in {"bias": [0.0] * 3, "shares": [0.0, 1.0], "temperature": -1.0, "covariance": [[0.0]]}.items():
        damaged = content | {"bias_correction": content["bias_correction"] | {key: value}}
        path.write_text(json.dumps(damaged), encoding="utf-8")
        with pytest.raises(ConfigError) as refused:
            load_calibration(tmp_path, BINARY_SENTIMENT)
        assert refused.value.code == "calibration-unusable", key
