"""Cleaning: what counts as the same text, and that every row is in exactly one heap."""

from __future__ import annotations

import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentifactory.corpus.cleaning import Reason, clean_reviews, normalise_text
from sentifactory.records import Review, Source

LABELS = ("negative", "positive")


def reviews_of(*rows: tuple[str, int | None]) -> list[Review]:
    return [Review(text, label, Source("a.csv", line)) for line, (text, label) in enumerate(rows, start=2)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("很好", "很好。"),
        ("很好，真的", "很好 真的!!!"),
        ("ＯＫ房间１２３", "ok房间123"),
        ("Straße", "STRASSE"),
        ("很好", "很\u200b好\ufeff"),
        ("很好", "很\n\t好\u3000"),
        ("５ｽﾀｰ", "5スター"),
        ("一~二＋三=四", "一二三四"),
        ("café", "cafe\u0301"),
        ("好❤", "好❤\ufe0f"),
        (":)", " ：） "),
    ],
)
def test_the_same_text(one: str, other: str) -> None:
    assert normalise_text(one) == normalise_text(other) != ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("很好", "很不好"),
        ("好👍", "好👎"),
        ("好", "好👍"),
        ("5星", "1星"),
        (":)", ":("),
        ("！", "？"),
        ("很好很好", "很好"),
    ],
)
def test_different_texts(one: str, other: str) -> None:
    assert normalise_text(one) != normalise_text(other)


@given(st.text())
def test_normalisation_ignores_what_it_says_and_is_stable(text: str) -> None:
    normal = normalise_text(text)
    assert normalise_text(normal) == normal
    assert normalise_text(unicodedata.normalize("NFKC", text)) == normal
    assert normalise_text(f"\n {text}\u3000") == normal
    assert (normal == "") == all(unicodedata.category(char)[0] in "ZC" for char in unicodedata.normalize("NFKC", text))


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
    cleaned = clean_reviews(rows, LABELS)
    assert cleaned.kept == [rows[0], rows[6]]
    told = {item.review.source.line: (item.reason, item.detail) for item in cleaned.rejected if item.review.source}
    assert told == {
        3: (Reason.EMPTY, ""),
        4: (Reason.REPEAT, "as a.csv, line 2"),
        5: (Reason.BOTH_LABELS, "positive in a.csv, line 6"),
        6: (Reason.BOTH_LABELS, "negative in a.csv, line 5"),
        7: (Reason.BOTH_LABELS, "positive in a.csv, line 6"),
        9: (Reason.EMPTY, ""),
        10: (Reason.REPEAT, "as a.csv, line 2"),
    }


TEXTS = st.one_of(st.text(max_size=4), st.sampled_from(["好", "好。", "ＯＫ", "ok", " ", "差", "差!"]))


@given(st.lists(st.tuples(TEXTS, st.sampled_from([0, 1]))))
def test_every_row_is_in_one_heap_and_no_text_stays_twice(rows: list[tuple[str, int]]) -> None:
    reviews = reviews_of(*rows)
    cleaned = clean_reviews(reviews, LABELS)
    assert Counter(cleaned.kept + [item.review for item in cleaned.rejected]) == Counter(reviews)
    keys = Counter(normalise_text(review.text) for review in cleaned.kept)
    assert "" not in keys
    assert set(keys.values()) <= {1}
    labels: dict[str, set[int | None]] = {}
    for review in reviews:
        labels.setdefault(normalise_text(review.text), set()).add(review.label)
    assert set(keys) == {key for key, found in labels.items() if key and len(found) == 1}
