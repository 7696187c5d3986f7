"""How many reviews show a difference: against a textbook example, and against thousands of simulated comparisons."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.errors import ConfigError
from sentifactory.metrics.power import (
    answer_power,
    approximate_reviews,
    compute_power,
    count_reviews_needed,
    estimate_discordance,
    find_smallest_difference,
)
from sentifactory.metrics.significance import compute_mcnemar


def test_the_approximation_against_a_textbook() -> None:
    """Chow, Shao and Wang, Sample Size Calculations in Clinical Research: shifts of 20% and 50%, 59 patients."""
    assert approximate_reviews(0.3, 0.7) == 59


@pytest.mark.parametrize(("reviews", "difference", "discordance"), [(200, 0.1, 0.3), (60, 0.3, 0.4), (900, 0.03, 0.1)])
def test_the_power_against_simulated_comparisons(reviews: int, difference: float, discordance: float) -> None:
    """4,000 comparisons drawn with the given shares; the power agrees within three standard errors."""
    fixed_share, broken_share = (discordance + difference) / 2, (discordance - difference) / 2
    dice = np.random.default_rng(reviews)
    runs = 4000
    draws = dice.multinomial(reviews, [fixed_share, broken_share, 1 - discordance], size=runs)
    p_values = {pair: compute_mcnemar(*pair) for pair in {(int(a), int(b)) for a, b, _ in draws}}
    shown = np.mean([a > b and p_values[int(a), int(b)] < 0.05 for a, b, _ in draws])
    power = compute_power(reviews, difference, discordance)
    assert power == pytest.approx(shown, abs=3 * (power * (1 - power) / runs) ** 0.5)


@pytest.mark.parametrize(("difference", "discordance"), [(0.1, 0.3), (0.35, 0.4), (0.03, 0.1), (0.05, 0.05)])
def test_the_number_is_enough_and_little_less_is_not(difference: float, discordance: float) -> None:
    answer = count_reviews_needed(difference, discordance)
    assert answer.achieved >= 0.8
    assert compute_power(int(answer.reviews * 0.93), difference, discordance) < 0.8
    # The exact test is careful: it asks for a few more than the approximation.
    assert answer.approximate_reviews <= answer.reviews <= answer.approximate_reviews * 1.15 + 20


def test_smaller_differences_and_more_power_need_more_reviews() -> None:
    few = count_reviews_needed(0.1, 0.2).reviews
    assert count_reviews_needed(0.05, 0.2).reviews > 3 * few
    assert count_reviews_needed(0.1, 0.2, power=0.95).reviews > few
    assert count_reviews_needed(0.1, 0.2, level=0.01).reviews > few


def test_independent_mistakes_against_simulation() -> None:
    dice = np.random.default_rng(1)
    first, second = dice.random(200_000) < 0.9, dice.random(200_000) < 0.8
    assert estimate_discordance(0.9, 0.8) == pytest.approx((first != second).mean(), abs=0.003)


def test_accuracies_give_difference_and_discordance() -> None:
    answer = answer_power(None, 0.85, 0.80, None, None, 0.8, 0.05)
    assert answer.difference == pytest.approx(0.05)
    assert answer.is_assumed
    assert "independent mistakes" in answer.describe()
    given = answer_power(None, 0.85, 0.80, 0.1, None, 0.8, 0.05)
    assert given.reviews < answer.reviews
    assert not given.is_assumed


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ((None, None, None, None, None, 0.8, 0.05), "power-options"),
        ((0.1, None, None, None, None, 0.8, 0.05), "power-options"),
        ((0.1, 0.8, 0.9, 0.2, None, 0.8, 0.05), "power-options"),
        ((0.2, None, None, 0.1, None, 0.8, 0.05), "power-discordance"),
        ((1.5, None, None, 1.0, None, 0.8, 0.05), "power-difference"),
        ((None, 0.8, 0.8, None, None, 0.8, 0.05), "power-difference"),
        ((0.1, None, None, 0.2, None, 1.0, 0.05), "power-level"),
        ((0.1, None, None, 0.2, 0, 0.8, 0.05), "option-value"),
        ((0.0001, None, None, 0.5, None, 0.8, 0.05), "power-too-many"),
    ],
)
def test_options_without_an_answer_are_refused(options: tuple[float, ...], code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        answer_power(*options)  # type: ignore[arg-type]
    assert caught.value.code == code


def test_the_command() -> None:
    told = CliRunner().invoke(
        build_app(), ["eval", "power", "--difference", "0.1", "--discordance", "0.3", "--reviews", "249", "--json"]
    )
    assert told.exit_code == 0
    assert json.loads(told.stdout)["achieved"] == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("reviews", [6, 30, 200, 5000])
def test_the_smallest_difference_has_the_wanted_power_and_no_smaller_one_has(reviews: int) -> None:
    difference = find_smallest_difference(reviews)
    assert difference is not None
    assert compute_power(reviews, difference, difference) >= 0.8
    assert compute_power(reviews, difference - 0.001, difference - 0.001) < 0.8


def test_five_reviews_show_no_difference() -> None:
    """All five in favour of one model: p = 2 / 32."""
    assert find_smallest_difference(5) is None
