"""When the base model is no baseline: a random head, replies that cannot be read, guessing."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_comparison import BASE_REPLIES, Workplace, write_reviews

from sentifactory.evaluation.report.first_screen import build_overview, build_tiles, read_lead
from sentifactory.evaluation.scoring.asked_models import ComparedModel
from sentifactory.evaluation.scoring.base_doubt import HAS_RANDOM_HEAD, doubt_base
from sentifactory.evaluation.scoring.scored_predictions import ScoredPredictions
from sentifactory.metrics.label_metrics import compute_metrics
from sentifactory.records import Prediction

LABELS = ("negative", "positive", "neutral")


def score(truth: list[int], answers: list[int | None], n_labels: int = 2, **facts: Any) -> ScoredPredictions:
    model = ComparedModel("base", "base", "transformers", lambda: None, facts)  # type: ignore[arg-type,return-value]
    metrics = compute_metrics(truth, answers, LABELS[:n_labels])
    return ScoredPredictions(model, tuple(Prediction(answer) for answer in answers), metrics)


HALF = [0, 1] * 100


@pytest.mark.parametrize(
    ("truth", "answers", "n_labels", "reason"),
    [
        (HALF, [0] * 200, 2, "guess"),
        (HALF, [0, 0, 1, 1] * 50, 2, "guess"),
        (HALF, [1, 0] * 100, 2, "guess"),  # worse than a coin
        ([1] * 170 + [0] * 30, [1] * 200, 2, "guess"),  # 85 % right, by always giving the commonest label
        (HALF, [None] * 190 + [0, 1] * 5, 2, "unreadable"),
        (HALF, [0, 1, 0, 0] * 50, 2, None),
        ([1] * 170 + [0] * 30, [1] * 165 + [0] * 35, 2, None),
        ([1] * 200, [1] * 198 + [0] * 2, 2, None),  # with one label there is no correlation
        ([1] * 200, [0, 1] * 100, 2, "guess"),
        ([0, 1, 2] * 60, [0, 1, 0] * 60, 3, None),
        ([0, 1, 2] * 60, [1, 2, 0, 0, 1, 2, 2, 0, 1] * 20, 3, "guess"),
    ],
)
def test_answers_that_do_not_depend_on_the_reviews(
    truth: list[int], answers: list[int | None], n_labels: int, reason: str | None
) -> None:
    doubt = doubt_base(score(truth, answers, n_labels), n_labels)
    assert (doubt.reason if doubt else None) == reason


def test_a_random_head_is_none_however_lucky() -> None:
    doubt = doubt_base(score(HALF, list(HALF), **{HAS_RANDOM_HEAD: True}), 2)
    assert doubt is not None
    assert doubt.reason == "random-head"


def test_a_doubt_is_named_wherever_the_base_model_is(workplace: Workplace) -> None:
    workplace.replies["base"] = ["", *BASE_REPLIES[2:4], "", "", BASE_REPLIES[0]]
    report = workplace.run()
    doubt = report["verdict"]["base_doubt"]
    assert doubt["reason"] == "unreadable"
    assert doubt["note"]["en"] in report["verdict"]["headline"]["en"]
    assert doubt["note"]["zh"] in report["verdict"]["headline"]["zh"]
    assert "Tuning brought" not in report["verdict"]["headline"]["en"]
    assert doubt["sentence"] in report["warnings"]
    tiles = {tile.title.en: tile for tile in build_tiles(report)}
    assert tiles["Base model"].is_doubtful
    assert tiles["Base model"].notes[-1].en == doubt["note"]["en"]
    assert doubt["sentence"]["zh"] in workplace.page()
    assert doubt["sentence"]["en"] in (workplace.folder / "out" / "report.md").read_text(encoding="utf-8")


def test_the_first_screen_answers_against_what_is_it_shown_and_at_what_cost(workplace: Workplace) -> None:
    rows = [(1, f"很满意，第{i}次来") for i in range(12)] + [(0, f"很失望，第{i}天走") for i in range(12)]
    train = write_reviews(workplace.folder / "train.csv", rows)
    report = workplace.run(train_csv=str(train))
    assert [tile.title.en for tile in build_tiles(report)] == [
        "Tuned model", "TF-IDF", "Tuned − TF-IDF", "Decided at 5% error", "Base model",
    ]  # fmt: skip
    lead = read_lead(report, "tfidf")
    right, other = (report["models"][name]["metrics"]["accuracy"] for name in ("tuned", "tfidf"))
    assert lead["difference"] == pytest.approx(right - other)
    assert lead["interval"]["low"] <= lead["difference"] <= lead["interval"]["high"]
    mirrored = report["paired_tests"]["tfidf_vs_tuned"]
    assert (lead["fixed"], lead["broken"]) == (mirrored["broken"], mirrored["fixed"])
    costs = report["models"]["tfidf"]
    assert costs["train_s"] > 0
    assert costs["size_bytes"] > 1000
    assert costs["peak_bytes"] > 10**7
    assert report["models"]["tuned"]["size_bytes"] == len("tuned_model")
    overview = build_overview(report)
    assert [title.en for title in overview.header] == [
        "Model", "Accuracy", "Tuned model's lead, points", "Training", "Reviews/s", "Memory", "Size",
    ]  # fmt: skip
    assert [title.en for title, _ in overview.rows] == ["Tuned model", "TF-IDF + logistic regression", "Base model"]


def test_without_training_reviews_the_base_model_is_the_rival(workplace: Workplace) -> None:
    titles = [tile.title.en for tile in build_tiles(workplace.run())]
    assert titles == ["Tuned model", "Tuned − base", "Decided at 5% error", "Base model"]


@pytest.mark.parametrize(
    ("probability", "data", "words"),
    [
        (None, {}, "probability for each answer"),
        ({"reviews": 30}, {}, "60 answered test reviews; there are 30"),
        ({"reviews": 300}, {"val": {}}, "no calibration"),
        ({"reviews": 300}, {}, "earlier versions"),
    ],
)
def test_the_share_that_is_decided_has_a_tile_and_a_reason_where_there_is_none(
    workplace: Workplace, probability: dict[str, int] | None, data: dict[str, Any], words: str
) -> None:
    report = workplace.run()
    report["models"]["tuned"] |= {"probability": probability, "decided": None}
    report["data"] |= data
    tile = {one.title.en: one for one in build_tiles(report)}["Decided at 5% error"]
    assert tile.value == "–"
    assert words in tile.notes[0].en
