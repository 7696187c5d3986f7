"""The calibration in a model's folder: saved, read, refused where it does not fit, and applied by every engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import link_model

from sentifactory.engines.base import ClosingEngine, OnAnswer, report_answers
from sentifactory.engines.registry import CalibratedEngine, build_engine
from sentifactory.errors import ConfigError
from sentifactory.metrics.calibration import (
    CALIBRATION_NAME,
    Calibration,
    find_calibration,
    hash_prompt,
    load_calibration,
    save_calibration,
)
from sentifactory.models.weights import hash_weights
from sentifactory.records import Prediction, Review
from sentifactory.task.task import BINARY_SENTIMENT, REFERENCE_SENTIMENT

CALIBRATION = Calibration(
    "batch", 2.0, (0.5, -0.5), "binary_sentiment", hash_prompt(BINARY_SENTIMENT), 0.8, 0.9, {"reviews": 200}, {}
)


class Fixed(ClosingEngine):
    """Gives the same answers, and knows whether it was closed."""

    name = "fixed"
    is_closed = False

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        answers = [
            Prediction(1, (0.45, 0.55), '{"sentiment": 1}', 0.1, (-2.0, -1.8)),
            Prediction(1, (0.1, 0.9)),
            Prediction(None, raw="好的"),
        ]
        return report_answers(answers, on_answer)

    def close(self) -> None:
        self.is_closed = True


def test_answers_are_corrected_on_their_way_out() -> None:
    inner = Fixed()
    told: dict[int, Prediction] = {}
    with CalibratedEngine(inner, CALIBRATION) as engine:
        answers = engine.predict([Review("x")] * 3, told.__setitem__)
    assert inner.is_closed
    assert engine.name == "fixed"
    assert [told[place] for place in range(3)] == answers
    assert answers[0].probabilities == CALIBRATION.apply((0.45, 0.55))
    # exp((log 0.45 - 0.5) / 2) : exp((log 0.55 + 0.5) / 2) = 0.522 : 0.952
    assert answers[0].probabilities == pytest.approx((0.3542, 0.6458), abs=1e-3)
    assert (answers[0].raw, answers[0].log_likelihoods) == ('{"sentiment": 1}', (-2.0, -1.8))
    assert answers[2] == Prediction(None, raw="好的")


def test_an_answer_changes_only_where_the_likeliest_label_does() -> None:
    leaning = replace(CALIBRATION, bias=(-1.0, 1.0))
    assert leaning.correct(Prediction(1, (0.45, 0.55))).label == 0
    assert leaning.correct(Prediction(1, (0.01, 0.99))).label == 1
    # Mode constrain names the label at which it arrived token by token, likeliest or not.
    assert replace(CALIBRATION, bias=(0.0, 0.0)).correct(Prediction(0, (0.45, 0.55))).label == 0
    assert replace(CALIBRATION, bias=(0.0, 0.0)).correct(Prediction(1, (0.5, 0.5))).label == 1


def test_it_belongs_to_the_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    fitting = replace(CALIBRATION, weights=hash_weights(tmp_path))
    save_calibration(fitting, tmp_path)
    assert find_calibration(str(tmp_path), BINARY_SENTIMENT) == fitting
    assert find_calibration(str(tmp_path), BINARY_SENTIMENT, {"model.safetensors": "0"}) is None
    (tmp_path / "model.safetensors").write_bytes(b"weights, trained on")
    assert find_calibration(str(tmp_path), BINARY_SENTIMENT) is None
    assert "fitted on other weights" in capsys.readouterr().err
    assert find_calibration("org/name", BINARY_SENTIMENT) is None
    assert find_calibration("", BINARY_SENTIMENT) is None


@pytest.mark.slow
def test_transformers_applies_what_lies_in_the_folder(tiny_qwen: Path, tmp_path: Path) -> None:
    folder = link_model(tiny_qwen, tmp_path / "model")
    calibration = replace(CALIBRATION, bias=(3.0, -3.0), weights=hash_weights(folder))
    save_calibration(calibration, folder)
    reviews = [Review("房间很干净"), Review("服务太差了，再也不来")]

    def ask(**options: object) -> list[Prediction]:
        with build_engine("transformers", str(folder), BINARY_SENTIMENT, **options) as engine:
            return engine.predict(reviews)

    plain, corrected = ask(mode="score", is_calibrated=False), ask(mode="score")
    for before, after in zip(plain, corrected, strict=True):
        assert after.probabilities == pytest.approx(calibration.apply(before.probabilities or ()))
        assert after.label == 1


def test_an_address_that_serves_the_folder_is_corrected_as_well(model_folder: Path, fake) -> None:
    behaviour, address = fake
    behaviour.root = str(model_folder)
    calibration = replace(CALIBRATION, weights=hash_weights(model_folder))
    save_calibration(calibration, model_folder)
    with build_engine(address, str(model_folder), BINARY_SENTIMENT, mode="score", is_calibrated=False) as engine:
        plain = engine.predict([Review("好")])[0]
    with build_engine(address, str(model_folder), BINARY_SENTIMENT, mode="score") as engine:
        corrected = engine.predict([Review("好")])[0]
    assert plain.probabilities is not None
    assert corrected.probabilities == pytest.approx(calibration.apply(plain.probabilities))
    assert corrected.probabilities != pytest.approx(plain.probabilities)


def test_saved_beside_a_model_and_read_again(tmp_path: Path) -> None:
    calibration = CALIBRATION
    assert load_calibration(tmp_path, BINARY_SENTIMENT) is None
    assert save_calibration(calibration, tmp_path) == tmp_path / CALIBRATION_NAME
    assert load_calibration(tmp_path, BINARY_SENTIMENT) == calibration
    assert load_calibration(tmp_path, REFERENCE_SENTIMENT) is None  # another prompt: not its calibration


@pytest.mark.parametrize(
    "change",
    [
        lambda values: {},
        lambda values: [],
        lambda values: {**values, "version": 99},
        lambda values: {**values, "temperature": 0},
        lambda values: {**values, "temperature": "hot"},
        lambda values: {**values, "bias": [1.0]},
        lambda values: {**values, "bias": ["a", "b"]},
        lambda values: {**values, "other": 1},
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, change: object) -> None:
    values = CALIBRATION.to_dict()
    (tmp_path / CALIBRATION_NAME).write_text(json.dumps(change(values)))  # type: ignore[operator]
    with pytest.raises(ConfigError, match="calibration cannot be used"):
        load_calibration(tmp_path, BINARY_SENTIMENT)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / CALIBRATION_NAME).write_text("{")
    with pytest.raises(ConfigError, match="calibration cannot be used"):
        load_calibration(tmp_path, BINARY_SENTIMENT)


@pytest.mark.parametrize("changes", [
    {"fitted_on": 5}, {"fitted_on": None}, {"weights": []}, {"threshold": "x"}, {"target_accuracy": None},
    {"temperature": None}, {"bias": 1}, {"temperature": float("inf")},
])  # fmt: skip
def test_a_calibration_of_another_form_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    values = CALIBRATION.to_dict() | changes
    (tmp_path / CALIBRATION_NAME).write_text(json.dumps(values))
    with pytest.raises(ConfigError):
        load_calibration(tmp_path, BINARY_SENTIMENT)
