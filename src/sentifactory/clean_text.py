"""Removes invisible characters from reviews, counted by kind, and normalises texts for comparison.

Normalisation (NFKC and more) is for comparison only; a review keeps its text. Finding duplicates is not covered here.
"""

from __future__ import annotations

import html
import re
import unicodedata
from functools import lru_cache

_NOT_A_WORD = re.compile(r"[\W_]+")
_VARIATION_SELECTORS = range(0xFE00, 0xFE10)

# Invisible everywhere: C0 and C1 controls except tab and line ends, soft hyphen, zero-width characters, direction
# marks, and the tag letters in which text can be hidden from people and shown to models.
_CONTROLS = "\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f"
_INVISIBLE = "\\xad\\u180e\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb\U000e0000-\U000e007f"
# Characters that show nothing by themselves, though they may mean something next to others: variation selectors,
# joiners and fillers of syllables, the empty Braille cell.
_SELECTORS = "\\u034f\\u180b-\\u180d\\u180f\\ufe00-\\ufe0f\U000e0100-\U000e01ef"
_EMPTY = f"{_SELECTORS}\\u115f\\u1160\\u17b4\\u17b5\\u2800\\u3164\\uffa0"
# Matches in every text that is not blank, entities aside. Also used as a pattern in JSON Schema, whose white space
# differs from Python's.
VISIBLE = f"[^\\s\\x85{_CONTROLS}{_INVISIBLE}{_EMPTY}]"
_BLANK = re.compile(f"[\\s{_INVISIBLE}{_EMPTY}]+")
_SUSPECT = re.compile(f"[&{_CONTROLS}{_INVISIBLE}]")
_CONTROL = re.compile(f"[{_CONTROLS}]")
# The flag of a region is a black flag and tag letters: the first group, which is kept.
_INVISIBLE_CHAR = re.compile(
    "(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,8}\U000e007f)" + f"|[{_INVISIBLE}]"
)
# In labels and column names none of them has a meaning, nor have variation selectors.
_UNSEEN = re.compile(f"[{_INVISIBLE}\u034f\ufe00-\ufe0f]")
# Complete entities only: "AT&T", "R&D;" and "&copy" without its semicolon are left alone.
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_BLANK_CONTROLS = "\x0b\x0c\x1c\x1d\x1e\x1f\x85"  # they separate words
_JOINERS = "\u200c\u200d"


@lru_cache(maxsize=65536)
def _keep_symbols(run: str) -> str:
    """Return the emoji, other pictures and combining marks of a run of non-word characters."""
    return "".join(
        char
        for char in run
        if (category := unicodedata.category(char)) == "So"
        or (category[0] == "M" and ord(char) not in _VARIATION_SELECTORS)
    )


def normalise_text(text: str) -> str:
    """Return the form in which two texts are compared: NFKC, no case, no punctuation, no spaces.

    Emoji are kept, because they can carry all the sentiment. A text of only punctuation is compared by its
    punctuation, so that ":)" and ":(" differ. Only a blank text gives "".

    Example:
        >>> normalise_text("ＯＫ， 很好！！") == normalise_text("ok很好。")
        True
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    words = _NOT_A_WORD.sub(lambda run: _keep_symbols(run[0]), folded)
    if words:
        return unicodedata.normalize("NFKC", words)
    return "".join(char for char in folded if unicodedata.category(char)[0] not in "ZC")


def clean_text(text: str) -> tuple[str, dict[str, int]]:
    """Return a review without invisible characters, and the number of changes by kind.

    Words, punctuation, line breaks, emoji and full-width forms are unchanged. HTML entities are decoded once. Control
    characters are removed; those that separate words become spaces. Invisible characters are removed unless they have
    an effect: joiners within emoji and joining scripts, direction marks in right-to-left text, tags of a flag. White
    space around the review is removed.

    Returns:
        The text, and the number of changes by kind; {} when nothing was changed.

    Example:
        >>> clean_text(" 很好&amp;便宜\u200b ")
        ('很好&便宜', {'HTML entities': 1, 'invisible characters': 1, 'outer whitespace': 2})
    """
    changes: dict[str, int] = {}
    cleaned = text
    if _SUSPECT.search(text):
        cleaned, n_entities = _replace_entities(text)
        cleaned, n_controls = _CONTROL.subn(_drop_control, cleaned)
        n_before = len(cleaned)
        cleaned = _drop_invisible(cleaned)
        kinds = ("HTML entities", "control characters", "invisible characters")
        counts = (n_entities, n_controls, n_before - len(cleaned))
        changes = {kind: n for kind, n in zip(kinds, counts, strict=True) if n}
    stripped = cleaned.strip()
    if len(stripped) < len(cleaned):
        changes["outer whitespace"] = len(cleaned) - len(stripped)
    if _BLANK.fullmatch(stripped):
        changes["invisible characters"] = changes.get("invisible characters", 0) + len(stripped)
        return "", changes
    return stripped, changes


def drop_unseen(word: str) -> str:
    """Return a label or a name without invisible characters.

    Example:
        >>> drop_unseen("\u200b1\ufeff")
        '1'
    """
    return word if word.isascii() else _UNSEEN.sub("", word)


def _replace_entities(text: str) -> tuple[str, int]:
    n_replaced = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal n_replaced
        char = html.unescape(match[0])
        if char == match[0] or char.endswith(";") or not char or "\ufffd" in char:
            return match[0]  # an unknown entity, or one that is not a character
        n_replaced += 1
        return char

    return (_ENTITY.sub(replace, text), n_replaced) if "&" in text else (text, 0)


def _drop_control(match: re.Match[str]) -> str:
    return " " if match[0] in _BLANK_CONTROLS else ""


def _drop_invisible(text: str) -> str:
    """Return a text without the invisible characters that have no effect."""
    has_right_to_left: bool | None = None

    def keep_or_drop(match: re.Match[str]) -> str:
        nonlocal has_right_to_left
        char, start, end = match[0], match.start(), match.end()
        if match[1] is not None:
            return char
        if char in _JOINERS:
            return (
                char if start > 0 and end < len(text) and _can_join(text[start - 1]) and _can_join(text[end]) else ""
            )
        if _is_direction_mark(char):
            if has_right_to_left is None:
                has_right_to_left = any(
                    unicodedata.bidirectional(other) in ("R", "AL") for other in text if not _is_direction_mark(other)
                )
            return char if has_right_to_left else ""
        return ""

    return _INVISIBLE_CHAR.sub(keep_or_drop, text)


def _can_join(char: str) -> bool:
    """Whether a joiner next to this character can have an effect: pictures, and scripts that join letters."""
    if char.isascii():
        return False
    category = unicodedata.category(char)
    if category in ("So", "Sk") or category[0] == "M":
        return True
    name = unicodedata.name(char, "")
    return category[0] == "L" and not name.startswith(("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "LATIN", "FULLWIDTH"))


def _is_direction_mark(char: str) -> bool:
    return char in "\u200e\u200f" or "\u202a" <= char <= "\u202e" or "\u2066" <= char <= "\u2069"
