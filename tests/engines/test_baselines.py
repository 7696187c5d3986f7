from __future__ import annotations

import random
import time

import pytest

from sentifactory.engines.local.baselines import TfidfEngine
from sentifactory.errors import DataError, EngineError
from sentifactory.records import Review, Source
from sentifactory.task.task import BINARY_SENTIMENT, Task

THREE = Task("three", ("bad", "middling", "good"), "s", (0, 1, 2), "{text}")


def make_reviews(number: int, seed: int = 0) -> list[Review]:
    chance = random.Random(seed)
    words = {1: ["很好", "喜欢", "值得", "推荐"], 0: ["很差", "失望", "退货", "后悔"]}
    filler = ["房间", "电脑", "这本书", "服务", "早餐", "屏幕", "送货", "前台"]
    return [
        Review("".join([*chance.choices(filler, k=6), chance.choice(words[label])]), label)
        for label in (number % 2 for number in range(number))
    ]


def test_it_learns_and_its_probabilities_are_probabilities() -> None:
    engine = TfidfEngine(BINARY_SENTIMENT).fit(make_reviews(400))
    unseen = make_reviews(200, seed=1)
    predictions = engine.predict(unseen)
    right = sum(prediction.label == review.label for prediction, review in zip(predictions, unseen, strict=True))
    assert right >= 195
    for prediction in predictions:
        assert prediction.probabilities is not None
        assert sum(prediction.probabilities) == pytest.approx(1)
        assert prediction.label == max((0, 1), key=prediction.probabilities.__getitem__)


def test_the_same_reviews_and_seed_give_the_same_probabilities() -> None:
    train, test = make_reviews(300), make_reviews(50, seed=2)
    first, second = (TfidfEngine(BINARY_SENTIMENT, seed=7).fit(train).predict(test) for _ in range(2))
    assert [p.probabilities for p in first] == [p.probabilities for p in second]


def test_order_and_labels_that_training_never_saw() -> None:
    train = [Review("很好很好", 2), Review("很差很差", 0), Review("无标签", None)] * 3
    predictions = TfidfEngine(THREE).fit(train).predict([Review("很差"), Review("很好"), Review("")])
    assert [prediction.label for prediction in predictions[:2]] == [0, 2]
    assert all(p.probabilities is not None and p.probabilities[1] == 0.0 for p in predictions)


def test_what_cannot_be_trained_or_asked() -> None:
    with pytest.raises(DataError, match=r"a.csv: The 1 labelled training reviews do not have two different labels"):
        TfidfEngine(BINARY_SENTIMENT).fit([Review("好", 1, Source("a.csv", 2)), Review("坏", None)])
    with pytest.raises(EngineError, match="has not been trained"):
        TfidfEngine(BINARY_SENTIMENT).predict([Review("好")])
    assert TfidfEngine(BINARY_SENTIMENT).fit(make_reviews(10)).predict([]) == []


def test_fifteen_thousand_reviews_are_learnt_in_seconds() -> None:
    start = time.monotonic()
    TfidfEngine(BINARY_SENTIMENT).fit(make_reviews(15_000))
    assert time.monotonic() - start < 60
