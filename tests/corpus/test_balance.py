"""Balance: fewer, more, or weights; copies go round, and nothing is lost."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentifactory.corpus.balance import balance_piles, compute_class_weights, share_out
from sentifactory.errors import ConfigError

PILES = [[1, 2, 3], [10, 11, 12, 13, 14, 15, 16], [20, 21]]


@pytest.mark.parametrize(
    ("balance", "max_train", "counts"),
    [
        ("down", None, [2, 2, 2]),
        ("down", 4, [1, 1, 1]),
        ("up", None, [7, 7, 7]),
        ("up", 10, [3, 3, 3]),
        ("none", None, [3, 7, 2]),
        ("none", 6, [2, 3, 1]),
        ("weights", 100, [3, 7, 2]),
    ],
)
def test_counts(balance: str, max_train: int | None, counts: list[int]) -> None:
    chosen, left_out = balance_piles(PILES, balance, max_train)
    assert [len(pile) for pile in chosen] == counts
    assert {*chosen[0], *chosen[1], *chosen[2], *left_out} == {row for pile in PILES for row in pile}
    assert not {row for pile in chosen for row in pile} & set(left_out)
    for pile, rows in zip(PILES, chosen, strict=True):
        times = Counter(rows).values()
        assert set(rows) <= set(pile)
        assert max(times) - min(times) <= 1


def test_an_unknown_choice_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        balance_piles(PILES, "half", None)
    assert caught.value.where == "--balance"


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=6))
def test_weights_make_all_labels_count_the_same(counts: list[int]) -> None:
    weights = compute_class_weights({str(number): count for number, count in enumerate(counts)})
    totals = [weight * count for weight, count in zip(weights.values(), counts, strict=True)]
    assert totals == pytest.approx([sum(counts) / len(counts)] * len(counts), rel=1e-3)


@given(st.integers(0, 500), st.lists(st.integers(0, 1000), min_size=1, max_size=6).filter(sum))
def test_shares_add_up(wanted: int, sizes: list[int]) -> None:
    counts = share_out(wanted, sizes)
    assert sum(counts) == wanted
    assert all(abs(count - wanted * size / sum(sizes)) < 1 for count, size in zip(counts, sizes, strict=True))
