"""A review that a model gives no answer to is one wrong answer, and takes no figure from the others."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scripted_comparison import Workplace, write_reviews
from test_whole_report import CHECKER, make_rows

from sentifactory.engines.base import OnAnswer, report_answers
from sentifactory.engines.local.baselines import TfidfEngine
from sentifactory.evaluation import compare
from sentifactory.evaluation.ladder.ladder import describe_entry
from sentifactory.evaluation.ladder.ladder_entries import EntryAnswers
from sentifactory.evaluation.report.figures import NOTHING_ANSWERED, explain_no_probabilities
from sentifactory.metrics.calibration import load_calibration
from sentifactory.records import Prediction, Review
from sentifactory.task.task import BINARY_SENTIMENT, Task


def write_long(seed: int) -> str:
    """A review that is longer than the model takes, and like no other."""
    return "".join(random.Random(seed).choices("好棒美佳优赞喜爱差糟坏烂劣厌恨怒", k=500))


LONG = write_long(0)


class ShortSighted(TfidfEngine):
    """TF-IDF that, as a server does, gives no answer to what is longer than it takes."""

    longest = 100

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        found = super().predict(reviews)
        pairs = zip(reviews, found, strict=True)
        return report_answers(
            [one if len(review.text) <= self.longest else Prediction(None) for review, one in pairs], on_answer
        )


@pytest.fixture
def place(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    folder = workplace.folder
    write_reviews(folder / "test.csv", [*make_rows(60, 1), (1, LONG)])
    write_reviews(folder / "val.csv", [*make_rows(60, 3), (0, write_long(1))])

    def build(kind: str, model: str, task: Task, *, name: str, **_: Any) -> TfidfEngine:
        rows = make_rows(20 if name == "base" else 400, 5)
        return (ShortSighted if name == "tuned" else TfidfEngine)(task, name=name).fit(
            [Review(text, label) for label, text in rows]
        )

    monkeypatch.setattr(compare, "build_engine", build)
    return workplace


def test_one_review_too_long_costs_one_review(place: Workplace) -> None:
    report = place.run(mode="score", val_path=str(place.folder / "val.csv"), target_accuracy=0.8)
    assert list(CHECKER.iter_errors(place.read())) == []
    base, tuned = (report["models"][side] for side in ("base", "tuned"))
    assert (tuned["metrics"]["reviews"], tuned["metrics"]["unparsed"]) == (61, 1)
    assert tuned["metrics"]["confusion"][1][-1] == 1
    assert (tuned["probability"]["reviews"], tuned["probability"]["n_missing"]) == (60, 1)
    assert (base["probability"]["reviews"], base["probability"]["n_missing"]) == (61, 0)
    assert 0 < tuned["probability"]["roc_auc"] <= 1
    assert (tuned["calibrated"]["reviews"], tuned["calibrated"]["n_missing"]) == (60, 1)
    right = sum(row["tuned"]["label"] == row["label"] for row in report["predictions"])
    assert tuned["metrics"]["accuracy"] == right / 61
    assert tuned["calibrated_accuracy"] <= 60 / 61
    assert tuned["probability"]["abstentions"][0]["answered"] == 60
    assert tuned["probability"]["abstentions"][0]["coverage"] == 60 / 61
    assert tuned["sure"] is None or tuned["sure"]["answered"] <= 60
    assert report["paired_tests"]["tuned_vs_base"]["reviews"] == 61
    fitted = load_calibration(place.folder / "tuned_model", BINARY_SENTIMENT)
    assert fitted is not None
    assert (fitted.fitted_on["reviews"], fitted.fitted_on["missing"]) == (60, 1)
    (told,) = [one for one in report["verdict"]["details"] if "1 of 61" in one["en"]]
    assert "60" in told["en"]
    assert "60" in told["zh"]
    page = place.page()
    assert told["en"] in page
    assert told["zh"] in page
    assert told["en"] in (place.folder / "out" / "report.md").read_text(encoding="utf-8")
    assert explain_no_probabilities(report) is None


def test_a_model_that_answers_nothing_gets_no_advice_to_use_the_mode_in_use(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ShortSighted, "longest", 0)
    report = place.run(mode="score", val_path=str(place.folder / "val.csv"))
    assert list(CHECKER.iter_errors(place.read())) == []
    assert report["models"]["tuned"]["probability"] is None
    assert report["models"]["tuned"]["metrics"]["accuracy"] == 0
    assert report["models"]["base"]["calibrated"] is not None
    assert load_calibration(place.folder / "tuned_model", BINARY_SENTIMENT) is None
    for side in ("base", "tuned"):
        report["models"][side]["probability"] = None
    assert explain_no_probabilities(report) == NOTHING_ANSWERED


def test_too_few_answered_validation_reviews_end_no_comparison(place: Workplace) -> None:
    write_reviews(place.folder / "val.csv", [*make_rows(20, 3), *((i % 2, write_long(1 + i)) for i in range(20))])
    report = place.run(mode="score", val_path=str(place.folder / "val.csv"))
    assert report["models"]["tuned"]["calibration"] is None
    assert report["models"]["tuned"]["probability"]["n_missing"] == 1
    assert report["models"]["base"]["calibration"] is not None


def test_an_entry_of_the_ladder_keeps_its_figures(tmp_path: Path) -> None:
    reviews = [Review(text, label) for label, text in [*make_rows(40, 1), (1, LONG)]]
    engine = ShortSighted(BINARY_SENTIMENT).fit([Review(text, label) for label, text in make_rows(200, 5)])
    answers = EntryAnswers(engine.predict(reviews), 1.0, 1.0, {}, None)
    entry = describe_entry(answers, reviews, BINARY_SENTIMENT, 0, None)
    assert (entry["n_missing"], entry["metrics"]["unparsed"], entry["metrics"]["reviews"]) == (1, 1, 41)
    assert entry["ece_equal_mass"] is not None
