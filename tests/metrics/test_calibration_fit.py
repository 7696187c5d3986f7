"""Calibrations equal those of an independent implementation and improve what they claim to improve."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sentifactory.errors import ConfigError
from sentifactory.metrics.calibration import Calibration
from sentifactory.metrics.calibration_fit import apply_temperature, fit_calibration, fit_temperature, list_biases
from sentifactory.metrics.reliability import find_confidence, make_mass_edges, weigh_ece
from sentifactory.task.task import BINARY_SENTIMENT


def draw(n: int, seed: int, *, sharpness: float = 1.0, lean: float = 0.0) -> tuple[list[int], np.ndarray]:
    """Labels, and probabilities that are `sharpness` times too sure and lean to label 1."""
    dice = np.random.default_rng(seed)
    scores = 2 * dice.normal(size=n)
    truth = dice.random(n) < 1 / (1 + np.exp(-scores))
    share = 1 / (1 + np.exp(-(sharpness * scores + lean)))
    return truth.astype(int).tolist(), np.column_stack([1 - share, share])


def fit(truth: list[int], shares: np.ndarray, content_free: np.ndarray | None = None) -> Calibration:
    return fit_calibration(
        truth,
        shares,
        BINARY_SENTIMENT,
        content_free=content_free,
        target_accuracy=0.9,
        fitted_on={"file": "val.csv", "sha256": "0"},
        weights={"model.safetensors": "1"},
    )


def test_the_temperature_against_scikit_learn() -> None:
    """With two labels, 1 / T is the one weight of a logistic regression on the log-odds, without an intercept."""
    truth, shares = draw(800, 1, sharpness=3)
    odds = np.log(shares[:, 1] / shares[:, 0])[:, None]
    weight = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(odds, truth).coef_[0, 0]
    assert fit_temperature(np.array(truth), np.log(shares)) == pytest.approx(1 / weight, rel=1e-3)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_the_temperature_finds_what_was_put_in(sharpness: float) -> None:
    truth, shares = draw(6000, 2, sharpness=sharpness)
    calibration = fit(truth, shares)
    assert calibration.method == "temperature"
    assert calibration.temperature == pytest.approx(sharpness, rel=0.1)
    assert calibration.bias == (0, 0)


def test_a_temperature_changes_no_answer_and_lowers_the_ece_of_other_reviews() -> None:
    calibration = fit(*draw(1000, 3, sharpness=4))
    truth, shares = draw(2000, 4, sharpness=4)
    corrected = np.array([calibration.apply(row) for row in shares])
    assert (corrected.argmax(axis=1) == shares.argmax(axis=1)).all()
    before, after = (
        weigh_ece(confidence, answers == truth, make_mass_edges(confidence), np.ones((1, 2000)))[0]
        for answers, confidence in map(find_confidence, (shares, corrected))
    )
    assert after < before / 3


def test_what_is_applied_one_by_one_is_what_was_fitted() -> None:
    _, shares = draw(50, 5, lean=1)
    calibration = Calibration("batch", 1.7, (0.4, -0.4), "t", "", None, 0.9, {}, {})
    whole = apply_temperature(np.log(shares) - np.array(calibration.bias), 1.7)
    assert np.array([calibration.apply(row) for row in shares]) == pytest.approx(whole)


def test_an_untuned_model_that_leans_to_one_label_is_set_straight() -> None:
    truth, shares = draw(1500, 6, sharpness=1, lean=3)
    calibration = fit(truth, shares, content_free=np.array([[0.05, 0.95]] * 3))
    assert calibration.method in ("batch", "contextual")
    later_truth, later = draw(1500, 7, sharpness=1, lean=3)
    corrected = np.array([calibration.apply(row) for row in later])
    was_right = (later.argmax(axis=1) == later_truth).mean()
    assert (corrected.argmax(axis=1) == later_truth).mean() > was_right + 0.1


def test_the_biases_by_hand() -> None:
    found = list_biases(np.array([[0.2, 0.8], [0.4, 0.6]]), np.array([[0.1, 0.9]]))
    assert found["temperature"].tolist() == [0, 0]
    assert found["batch"][1] - found["batch"][0] == pytest.approx(np.log(0.7 / 0.3))
    assert found["contextual"][1] - found["contextual"][0] == pytest.approx(np.log(9))
    assert list(list_biases(np.array([[0.2, 0.8]]), None)) == ["temperature"]


def test_the_threshold_holds_on_the_validation_reviews() -> None:
    truth, shares = draw(1000, 8)
    calibration = fit(truth, shares)
    corrected = np.array([calibration.apply(row) for row in shares])
    sure = np.array([calibration.is_sure(row) for row in corrected])
    assert 30 < sure.sum() < 1000
    assert (corrected.argmax(axis=1) == truth)[sure].mean() >= 0.9
    assert not replace(calibration, threshold=None).is_sure((0.0, 1.0))


def test_probabilities_of_0_and_1_survive() -> None:
    assert Calibration("temperature", 2.0, (0.0, 0.0), "t", "", None, 0.9, {}, {}).apply((1.0, 0.0)) == (
        pytest.approx(1, abs=1e-5),
        pytest.approx(0, abs=1e-5),
    )


@pytest.mark.parametrize("truth", [[0, 1] * 5, [1] * 40])
def test_too_little_to_fit_on_is_refused(truth: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"val\.csv.*too few"):
        fit(truth, np.tile([0.4, 0.6], (len(truth), 1)))
