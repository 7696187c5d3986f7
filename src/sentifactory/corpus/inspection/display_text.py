"""How reviews, names and reasons are displayed: whole characters, known places, nothing that acts on a terminal."""

from __future__ import annotations

import unicodedata
from itertools import accumulate
from typing import Any

from sentifactory.records import Review

REASONS_ZH = {
    "broken row": "残缺行",
    "unknown label": "未知标签",
    "no label": "无标签",
    "middle stars": "中间星级",
    "too long": "过长",
    "empty": "空白",
    "repeat": "重复",
    "more than one label": "标签矛盾",
    "as a held-out review": "与留出的评论重复",
    "surplus": "富余",
}
# Of the reasons that do not explain themselves.
_EXPLANATIONS = {
    "repeat": ("the first one stays", "保留首次出现的一条"),
    "more than one label": ("it is unknown which is right", "无法确定哪个标签正确"),
    "as a held-out review": ("kept, it would bias the test", "否则测试结果不可信"),
    "surplus": (
        "valid reviews, left out to balance the labels or by a limit",
        "评论本身无误：为平衡类别或受数量限制而未选用",
    ),
}
# Longer texts are truncated, and shown with their full length.
TEXT_LIMIT = 2000
_CONTROL_PICTURES = 0x2400  # U+2400 is the picture of U+0000, and so on


def name_reason(reason: str) -> tuple[str, str]:
    """Return the name of a reason in English and Chinese."""
    return reason, REASONS_ZH.get(reason, reason)


def explain_reason(reason: str) -> tuple[str, str] | None:
    """Return the explanation of a reason in English and Chinese, None where it needs none."""
    return _EXPLANATIONS.get(reason)


def shorten_name(name: str, n_cells: int) -> str:
    """Truncate a name to a width in cells, of which a Chinese character takes two.

    Example:
        >>> shorten_name("ChnSentiCorp_htl_all", 10), shorten_name("电脑与配件", 6)
        ('ChnSentiC…', '电脑…')
    """
    widths = [2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in name]
    if sum(widths) <= n_cells:
        return name
    return name[: sum(total < n_cells for total in accumulate(widths))] + "…"


def count_noun(number: int, one: str, several: str | None = None) -> str:
    """Return a number with its noun.

    Example:
        >>> count_noun(1, "review"), count_noun(1200, "review")
        ('1 review', '1,200 reviews')
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def make_encodable(text: str) -> str:
    """Return a text without lone surrogates, which JSON can hold but UTF-8 and tokenizers cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def quote_text(text: str) -> dict[str, Any]:
    """Return a review for display: its text, truncated if very long, and its full length in characters."""
    return {"text": make_encodable(text[:TEXT_LIMIT]), "characters": len(text)}


def describe_place(review: Review) -> dict[str, Any]:
    """Return the file and line of a review."""
    return {"file": review.source.file, "line": review.source.line} if review.source else {"file": "", "line": 0}


def quote_for_terminal(text: str, width: int) -> str:
    r"""Return a review on one line, truncated, with control characters replaced by visible symbols.

    Escape sequences and direction marks would otherwise act on the terminal.

    Example:
        >>> quote_for_terminal("好\x1b[2J\n很好", 20)
        '好␛[2J 很好'
    """
    shown = "".join(map(_show_character, " ".join(make_encodable(text[: 4 * width]).split())))
    return shown if len(shown) <= width and len(text) <= 4 * width else shown[: width - 1] + "…"


def _show_character(char: str) -> str:
    if char < " ":
        return chr(_CONTROL_PICTURES + ord(char))
    return "\ufffd" if unicodedata.category(char) in ("Cc", "Cf", "Cs") and char != "\u200d" else char
