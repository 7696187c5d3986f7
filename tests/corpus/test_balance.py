"""Balancing: rows left out, copied in turn, or weighted; no row is lost."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentifactory.corpus.splitting.balance import apportion, balance_rows, compute_class_weights
from sentifactory.errors import ConfigError

ROWS_BY_LABEL = [[1, 2, 3], [10, 11, 12, 13, 14, 15, 16], [20, 21]]


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
    chosen, left_out = balance_rows(ROWS_BY_LABEL, balance, max_train)
    assert [len(rows_of_label) for rows_of_label in chosen] == counts
    assert {*chosen[0], *chosen[1], *chosen[2], *left_out} == {
        row for rows_of_label in ROWS_BY_LABEL for row in rows_of_label
    }
    assert not {row for rows_of_label in chosen for row in rows_of_label} & set(left_out)
    for rows_of_label, rows in zip(ROWS_BY_LABEL, chosen, strict=True):
        times = Counter(rows).values()
        assert set(rows) <= set(rows_of_label)
        assert max(times) - min(times) <= 1


def test_an_unknown_choice_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        balance_rows(ROWS_BY_LABEL, "half", None)
    assert caught.value.where == "--balance"


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=6))
def test_weights_make_all_labels_count_the_same(counts: list[int]) -> None:
    weights = compute_class_weights({str(number): count for number, count in enumerate(counts)})
    totals = [weight * count for weight, count in zip(weights.values(), counts, strict=True)]
    assert totals == pytest.approx([sum(counts) / len(counts)] * len(counts), rel=1e-3)


@given(st.integers(0, 500), st.lists(st.integers(0, 1000), min_size=1, max_size=6).filter(sum))
def test_shares_add_up(wanted: int, sizes: list[int]) -> None:
    counts = apportion(wanted, sizes)
    assert sum(counts) == wanted
    assert all(abs(count - wanted * size / sum(sizes)) < 1 for count, size in zip(counts, sizes, strict=True))
