"""A teacher is asked about reviews without labels: its probabilities are written, and no answer is asked for twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_models import build_tiny_bert

from sentifactory.engines.base import ClosingEngine, OnAnswer
from sentifactory.engines.encoder import EncoderEngine
from sentifactory.errors import ConfigError, EngineError
from sentifactory.evaluation import teaching
from sentifactory.evaluation.teaching import TeachOptions, ask_teacher
from sentifactory.records import Prediction, Review
from sentifactory.task import BINARY_SENTIMENT
from sentifactory.training.soft_labels import read_soft_labels

TEXTS = ["很好", "太差了", "房间干净", "服务热情", "再也不来", "值得购买"]


@pytest.fixture
def options(tmp_path: Path) -> TeachOptions:
    folder = tmp_path / "teacher"
    folder.mkdir()
    build_tiny_bert(folder)
    pool = tmp_path / "pool.csv"
    pool.write_text("text,label\n" + "".join(f"{text},x\n" for text in [*TEXTS, TEXTS[0]]), encoding="utf-8")
    return TeachOptions(str(folder), (str(pool),), tmp_path / "soft" / "labels.jsonl", engine="encoder")


class Dying(ClosingEngine):
    """Answers a few reviews by another engine, and fails."""

    def __init__(self, engine: Any, answers: int) -> None:
        self.name = engine.name
        self._engine, self._answers = engine, answers

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        self._engine.predict(reviews[: self._answers], on_answer)
        raise EngineError("It has died")


def test_a_run_that_was_cut_off_asks_only_for_the_rest(options: TeachOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    build, asked = teaching.build_engine, []

    def build_dying(*words: Any, **settings: Any) -> Any:
        return Dying(build(*words, **settings), 4)

    def build_watched(*words: Any, **settings: Any) -> Any:
        engine: Any = build(*words, **settings)
        predict = engine.predict
        engine.predict = lambda reviews, tell=None: asked.extend(reviews) or predict(reviews, tell)
        return engine

    monkeypatch.setattr(teaching, "build_engine", build_dying)
    with pytest.raises(EngineError, match="It has died"):
        ask_teacher(options)
    assert not options.output_file.exists()
    monkeypatch.setattr(teaching, "build_engine", build_watched)
    facts = ask_teacher(options)
    assert [review.text for review in asked] == TEXTS[4:]
    assert facts["reviews"] == 6, "a text that stands there twice is asked once"
    assert sum(facts["answered"].values()) == 6
    assert json.loads(options.output_file.with_suffix(".json").read_text()) == facts
    assert sorted(path.name for path in options.output_file.parent.iterdir()) == ["labels.json", "labels.jsonl"]
    with EncoderEngine(options.teacher, BINARY_SENTIMENT) as engine:
        expected = [answer.probabilities for answer in engine.predict([Review(text) for text in TEXTS])]
    found = read_soft_labels(options.output_file, BINARY_SENTIMENT)
    assert list(found) == TEXTS
    assert list(found.values()) == [pytest.approx(shares, abs=1e-5) for shares in expected]


def test_a_name_that_would_not_be_known_again_is_refused(options: TeachOptions) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.jsonl"):
        ask_teacher(TeachOptions(options.teacher, options.input_files, Path("soft.csv")))
