"""Cleaning: what counts as the same text."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentifactory.clean_text import normalise_text


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
