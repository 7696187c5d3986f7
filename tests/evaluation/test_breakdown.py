"""Groups, the parts of a difference, and the words that are frequent in mistakes."""

from __future__ import annotations

import random

import pytest
from scipy.stats import fisher_exact

from sentifactory.evaluation.scoring.breakdown import find_words, name_length, score_groups
from sentifactory.evaluation.scoring.decomposition import decompose_difference
from sentifactory.records import Prediction, Review


def test_groups_by_hand() -> None:
    reviews = [
        Review("好" * 10, 1, domain="books"),
        Review("差" * 20, 0, domain="books"),
        Review("好" * 21, 1, domain="hotels"),
        Review("差" * 450, 0),
    ]
    predictions = [Prediction(1), Prediction(None), Prediction(1), Prediction(1)]
    groups = {(group.kind, group.name): group for group in score_groups(reviews, predictions)}
    assert list(groups) == [
        ("domain", "books"), ("domain", "hotels"), ("length", "1-20"), ("length", "21-50"), ("length", ">400"),
    ]  # fmt: skip
    books = groups["domain", "books"]
    assert (books.reviews, books.accuracy, books.coverage) == (2, 0.5, 0.5)
    assert books.macro_f1 == pytest.approx(0.5)  # F1 of positive 1, of negative 0
    assert books.interval.low < 0.5 < books.interval.high
    assert groups["length", ">400"].accuracy == 0


def test_every_review_is_in_one_length_band() -> None:
    names = [name_length("字" * length) for length in range(1, 600)]
    assert list(dict.fromkeys(names)) == ["1-20", "21-50", "51-100", "101-200", "201-400", ">400"]


def test_the_parts_of_a_difference_sum_to_it() -> None:
    dice = random.Random(3)
    for _ in range(50):
        truth = [dice.randrange(3) for _ in range(60)]
        first, second = ([dice.choice([0, 1, 2, None]) for _ in range(60)] for _ in range(2))
        parts = decompose_difference(truth, first, second)
        right = [[a == true for true, a in zip(truth, answers, strict=True)] for answers in (first, second)]
        assert parts.difference == pytest.approx((sum(right[1]) - sum(right[0])) / 60)
        assert parts.from_format + parts.from_sentiment == pytest.approx(parts.difference)
        assert parts.both_parsed + parts.only_first_parsed + parts.only_second_parsed + parts.none_parsed == 60


def test_format_alone_and_sentiment_alone() -> None:
    learnt_format = decompose_difference([1, 0, 1, 0], [None, None, 1, 0], [1, 0, 1, 0])
    assert (learnt_format.from_format, learnt_format.from_sentiment) == (0.5, 0)
    assert learnt_format.test is not None
    assert learnt_format.test.p_value == 1
    learnt_sentiment = decompose_difference([1, 0, 1, 0], [0, 1, 1, 0], [1, 0, 1, 0])
    assert (learnt_sentiment.from_format, learnt_sentiment.from_sentiment) == (0, 0.5)
    assert (learnt_sentiment.first_accuracy, learnt_sentiment.second_accuracy) == (0.5, 1)
    nothing_shared = decompose_difference([1, 0], [None, None], [1, 0])
    assert nothing_shared.test is None
    assert nothing_shared.first_accuracy is None


def test_a_word_that_goes_with_mistakes_is_found() -> None:
    """Of 300 reviews 60 hold the word, half of them wrong; of the others one in twenty."""
    dice = random.Random(1)
    letters = "的一是在不了有和人这中大为上个国我以要他"
    reviews, predictions = [], []
    for row in range(300):
        text = "".join(dice.choices(letters, k=12))
        is_odd = row % 5 == 0
        reviews.append(Review(text + ("偏偏反讽" if is_odd else ""), 1))
        predictions.append(Prediction(0 if dice.random() < (0.5 if is_odd else 0.05) else 1))
    words = find_words(reviews, predictions)
    assert [word.word for word in words] == ["偏偏反讽"]  # its parts stand in the same reviews and are left out
    wrong = sum(prediction.label == 0 for prediction in predictions[::5])
    assert (words[0].reviews, words[0].wrong) == (60, wrong)
    all_wrong = sum(prediction.label == 0 for prediction in predictions)
    table = [[wrong, 60 - wrong], [all_wrong - wrong, 240 - (all_wrong - wrong)]]
    # Corrected for several hundred words that were looked at, and still far from chance.
    assert fisher_exact(table, alternative="greater").pvalue < words[0].p_value < 0.001


def test_chance_alone_gives_no_word() -> None:
    dice = random.Random(2)
    letters = "的一是在不了有和人这中大为上个国我以要他"
    reviews = [Review("".join(dice.choices(letters, k=20)), 1) for _ in range(200)]
    assert find_words(reviews, [Prediction(dice.choice([0, 1, 1])) for _ in reviews]) == []
    assert find_words(reviews, [Prediction(1)] * 200) == []
