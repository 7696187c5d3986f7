"""Adapting a model's answers uses no true label, and says why it does nothing."""

from __future__ import annotations

import numpy as np

from sentifactory.evaluation.report.adaptation_words import describe_adapted
from sentifactory.evaluation.scoring.adapted_scores import adapt_scores, compare_adapted
from sentifactory.metrics.bias_correction import fit_bias_correction
from sentifactory.metrics.calibration import Calibration
from sentifactory.records import Prediction, Review
from sentifactory.task.task import BINARY_SENTIMENT


def draw(n: int, share: float, seed: int) -> tuple[list[Review], list[Prediction]]:
    dice = np.random.default_rng(seed)
    truth = (np.arange(n) < share * n).astype(int)
    likely = 1 / (1 + np.exp(-(2 * truth - 1) * 2.2 - 3 * dice.normal(size=n)))
    predictions = [Prediction(int(one > 0.5), (1 - float(one), float(one))) for one in likely]
    return [Review(f"第{row}条", int(label)) for row, label in enumerate(truth)], predictions


def calibrate() -> Calibration:
    reviews, predictions = draw(500, 0.5, 1)
    shares = np.array([one.probabilities for one in predictions])
    correction = fit_bias_correction([review.label or 0 for review in reviews], shares)
    return Calibration("temperature", 2.0, (0.0, 0.0), "t", "", None, 0.95, {}, {}, correction)


def test_the_true_labels_measure_and_decide_nothing() -> None:
    reviews, predictions = draw(600, 0.85, 2)
    adapted = adapt_scores(predictions, reviews, calibrate(), BINARY_SENTIMENT)
    assert adapted.is_adapted
    assert adapted.test.difference > 0
    others = [Review(review.text, 1 - (review.label or 0)) for review in reviews]
    again = adapt_scores(predictions, others, calibrate(), BINARY_SENTIMENT)
    assert again.predictions == adapted.predictions
    assert again.shift == adapted.shift


def test_a_review_without_an_answer_stays_without_one() -> None:
    reviews, predictions = draw(600, 0.85, 2)
    predictions[3] = Prediction(None)
    adapted = adapt_scores(predictions, reviews, calibrate(), BINARY_SENTIMENT)
    assert adapted.predictions[3].label is None
    assert adapted.shift is not None
    assert adapted.shift.reviews == 599


def test_nothing_changes_where_nothing_can_be_or_needs_to_be_adapted() -> None:
    reviews, predictions = draw(600, 0.5, 3)
    texts = [Prediction(one.label) for one in predictions]
    few = adapt_scores(predictions[:50], reviews[:50], calibrate(), BINARY_SENTIMENT)
    for found in (few, adapt_scores(texts, reviews, calibrate(), BINARY_SENTIMENT),
                  adapt_scores(predictions, reviews, None, BINARY_SENTIMENT)):  # fmt: skip
        assert found.refused is not None
        assert found.shift is None
        assert (found.test.fixed, found.test.broken) == (0, 0)
    alike = adapt_scores(predictions, reviews, calibrate(), BINARY_SENTIMENT)
    assert alike.refused is None
    assert not alike.is_adapted
    assert list(alike.predictions) == predictions


def test_no_model_is_praised_for_an_adaptation_that_there_was_not() -> None:
    reviews, predictions = draw(600, 0.85, 2)
    told = {}
    for name, calibration in (("tuned", calibrate()), ("base", None)):
        adapted = adapt_scores(predictions, reviews, calibration, BINARY_SENTIMENT)
        told[name] = describe_adapted(
            {
                "models": {name: {"metrics": adapted.metrics.to_dict()}},
                "adapted": {"models": {name: adapted.to_dict()}, "paired_tests": {}},
            }
        )
    assert f"{adapted.metrics.accuracy:.1%}" not in told["base"].en
    assert "%" in told["tuned"].en


def test_every_two_models_are_compared_after_adaptation() -> None:
    reviews, predictions = draw(600, 0.85, 4)
    first = adapt_scores(predictions, reviews, calibrate(), BINARY_SENTIMENT)
    second = adapt_scores(draw(600, 0.85, 5)[1], reviews, calibrate(), BINARY_SENTIMENT)
    third = adapt_scores(predictions, reviews, None, BINARY_SENTIMENT)
    tests = compare_adapted({"base": first, "tuned": second, "tfidf": third}, reviews)
    assert set(tests) == {("base", "tuned"), ("base", "tfidf"), ("tuned", "tfidf")}
    assert tests["base", "tfidf"].difference == -first.test.difference
