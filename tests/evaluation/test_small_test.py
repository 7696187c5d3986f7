"""Small tests are warned of with the difference that they could show."""

from __future__ import annotations

import pytest

from sentifactory.evaluation.scoring.small_test import warn_of_small_test


@pytest.mark.parametrize(("n_reviews", "points"), [(30, "25 points"), (60, "13 points"), (100, "8 points")])
def test_the_difference_that_it_could_show(n_reviews: int, points: str) -> None:
    (warning,) = warn_of_small_test(n_reviews)
    assert points in warning.en
    assert f"{n_reviews} reviews" in warning.en
    assert points.split()[0] in warning.zh


def test_five_reviews_show_nothing_and_many_are_enough() -> None:
    (warning,) = warn_of_small_test(5)
    assert "no difference at all" in warning.en
    assert warn_of_small_test(300) == []
    assert warn_of_small_test(100_000) == []
