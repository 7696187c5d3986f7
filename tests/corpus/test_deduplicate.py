"""Duplicates and contradictions: every row is kept or rejected with the right reason."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentifactory.clean_text import normalise_text
from sentifactory.corpus.cleaning.deduplicate import MAJORITY, DistinctRows, drop_duplicates
from sentifactory.corpus.cleaning.text_keys import make_keys
from sentifactory.records import Reason, Review, Source

LABELS = ("negative", "positive")


def reviews_of(*rows: tuple[str, int | None]) -> list[Review]:
    return [Review(text, label, Source("a.csv", line)) for line, (text, label) in enumerate(rows, start=2)]


def leave_out(reviews: list[Review], on_conflict: str = "drop") -> DistinctRows:
    return drop_duplicates(reviews, make_keys([review.text for review in reviews]), LABELS, on_conflict)


def reasons_of(distinct: DistinctRows) -> dict[int, tuple[Reason, str]]:
    return {item.review.source.line: (item.reason, item.detail) for item in distinct.rejected if item.review.source}


def test_reasons_and_details() -> None:
    rows = reviews_of(
        ("很好", 1),
        ("  ", 1),
        ("很好！", 1),
        ("一般", 0),
        ("一般。", 1),
        ("一般", 0),
        ("差", 0),
        ("", None),
        ("很好", 1),
    )
    distinct = leave_out(rows)
    assert distinct.kept == [rows[0], rows[6]]
    assert distinct.keys == ["很好", "差"]
    assert reasons_of(distinct) == {
        3: (Reason.EMPTY, ""),
        4: (Reason.REPEAT, "as a.csv, line 2"),
        5: (Reason.BOTH_LABELS, "positive in a.csv, line 6"),
        6: (Reason.BOTH_LABELS, "negative in a.csv, line 5"),
        7: (Reason.BOTH_LABELS, "positive in a.csv, line 6"),
        9: (Reason.EMPTY, ""),
        10: (Reason.REPEAT, "as a.csv, line 2"),
    }


def test_only_a_majority_resolves_a_conflict() -> None:
    rows = reviews_of(("一般", 0), ("一般。", 1), ("一般！", 1), ("还行", 0), ("还行。", 1), ("好", 1))
    distinct = leave_out(rows, MAJORITY)
    assert distinct.kept == [rows[1], rows[5]]
    assert reasons_of(distinct) == {
        2: (Reason.BOTH_LABELS, "positive in 2 of 3 rows, as a.csv, line 3"),
        4: (Reason.REPEAT, "as a.csv, line 3"),
        5: (Reason.BOTH_LABELS, "positive in a.csv, line 6"),
        6: (Reason.BOTH_LABELS, "negative in a.csv, line 5"),
    }


TEXTS = st.one_of(st.text(max_size=4), st.sampled_from(["好", "好。", "ＯＫ", "ok", " ", "差", "差!"]))


@pytest.mark.slow
@given(st.lists(st.tuples(TEXTS, st.sampled_from([0, 1]))), st.sampled_from(["drop", MAJORITY]))
def test_every_row_is_kept_or_rejected_and_no_text_is_kept_twice(
    rows: list[tuple[str, int]], on_conflict: str
) -> None:
    reviews = reviews_of(*rows)
    distinct = leave_out(reviews, on_conflict)
    assert Counter(distinct.kept + [item.review for item in distinct.rejected]) == Counter(reviews)
    assert distinct.keys == [normalise_text(review.text) for review in distinct.kept]
    assert "" not in distinct.keys
    assert len(set(distinct.keys)) == len(distinct.keys)
    votes: dict[str, Counter[int | None]] = {}
    for review in reviews:
        votes.setdefault(normalise_text(review.text), Counter())[review.label] += 1
    for key, review in zip(distinct.keys, distinct.kept, strict=True):
        assert votes[key][review.label] == max(votes[key].values())
    is_clear = {
        key: len(found) == 1 or (on_conflict == MAJORITY and found[0] != found[1]) for key, found in votes.items()
    }
    assert set(distinct.keys) == {key for key, clear in is_clear.items() if key and clear}
