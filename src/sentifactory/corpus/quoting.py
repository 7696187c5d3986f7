"""How reviews are quoted where a person reads them: whole words, known places, nothing that acts on a terminal."""

from __future__ import annotations

import unicodedata
from typing import Any

from sentifactory.records import Review

# A page is for looking: of a longer text the beginning is shown, with its whole length.
TEXT_LIMIT = 2000
_CONTROL_PICTURES = 0x2400  # U+2400 is the picture of U+0000, and so on


def make_encodable(text: str) -> str:
    """Return a text without lone surrogates: JSON can carry them, UTF-8 and tokenizers cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def quote_text(text: str) -> dict[str, Any]:
    """Return a review as it is shown: its words, cut where it is very long, and its whole length in characters."""
    return {"text": make_encodable(text[:TEXT_LIMIT]), "characters": len(text)}


def describe_place(review: Review) -> dict[str, Any]:
    """Return the file and line of a review."""
    return {"file": review.source.file, "line": review.source.line} if review.source else {"file": "", "line": 0}


def quote_for_terminal(text: str, width: int) -> str:
    r"""Return the beginning of a review on one line, with control characters shown as pictures of themselves.

    A terminal acts on escape sequences and on marks that turn the direction of writing; a review must not.

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
