"""Which characters cleaning removes, keeps and counts."""

from __future__ import annotations

import pytest

from sentifactory.clean_text import clean_text


@pytest.mark.parametrize(
    ("text", "cleaned", "changes"),
    [
        (" 很好\n\u3000", "很好", {"outer whitespace": 3}),
        ("很好&amp;便宜&#128077;&#x4E0D;", "很好&便宜👍不", {"HTML entities": 3}),
        ("&amp;lt;", "&lt;", {"HTML entities": 1}),
        ("好\x00\x07吗\x0b真\x85的", "好吗 真 的", {"control characters": 4}),
        ("\ufeff好\u200b吗\u00ad\u2060", "好吗", {"invisible characters": 4}),
        ("好\u200d吗 a\u200cb", "好吗 ab", {"invisible characters": 2}),
        ("\u202e好吗\u200f", "好吗", {"invisible characters": 2}),
        ("好\U000e0069\U000e0067\U000e006e", "好", {"invisible characters": 3}),
        ("\u3164", "", {"invisible characters": 1}),
        (" \ufe0f\u200d\ufe0f\u2800", "", {"invisible characters": 4, "outer whitespace": 1}),
        (" &nbsp;好&#8203;", "好", {"HTML entities": 2, "invisible characters": 1, "outer whitespace": 2}),
    ],
)
def test_removed_characters(text: str, cleaned: str, changes: dict[str, int]) -> None:
    assert clean_text(text) == (cleaned, changes)


@pytest.mark.parametrize(
    "text",
    [
        "行一\r\n行二\n\n行三\t列",
        "ＯＫ，１００％　全角……“引号”",
        "AT&T R&D; &copy 2 &bogus; &#0; &#xD800;",
        "👨\u200d👩\u200d👧 ❤\ufe0f 👍🏽",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "نمی\u200cخواهم",
        "क्\u200dष",
        "שלום\u200f (ok)",
        "cafe\u0301 \ue000 \ufffd",
        "<br/> <b>好</b>",
        "",
    ],
)
def test_kept_characters(text: str) -> None:
    assert clean_text(text) == (text, {})


def test_cleaning_many_invisible_characters_is_fast() -> None:
    text = "א" + "\u200f\u200d\u200b\U000e0041" * 100_000 + "好"
    cleaned, changes = clean_text(text)
    assert cleaned == "א" + "\u200f" * 100_000 + "好"
    assert changes == {"invisible characters": 300_000}
