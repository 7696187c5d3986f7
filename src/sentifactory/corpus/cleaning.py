"""Cleans reviews of what no reader sees, counted by kind, and says which texts are the same and why rows are left out.

Normalisation (NFKC and more) serves comparison only. Not covered: finding the repeats, which is done by `repeats`.
"""

from __future__ import annotations

import html
import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from sentifactory.records import Review

_NOT_A_WORD = re.compile(r"[\W_]+")
_VARIATION_SELECTORS = range(0xFE00, 0xFE10)

# What is visible nowhere: C0 and C1 controls but tab and line ends, soft hyphen, zero-width signs, direction marks,
# and the tag letters in which text can be hidden from people and shown to models.
_CONTROLS = "\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f"
_INVISIBLE = "\\xad\\u180e\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb\U000e0000-\U000e007f"
# A sign that is there when a text is not blank, entities aside; a pattern for JSON Schema as well, which counts other
# signs as white space than Python does.
VISIBLE = f"[^\\s\\x85{_CONTROLS}{_INVISIBLE}]"
_SUSPECT = re.compile(f"[&{_CONTROLS}{_INVISIBLE}]")
_CONTROL = re.compile(f"[{_CONTROLS}]")
# A flag of a region is a black flag and tag letters: the first group, which stays.
_INVISIBLE_CHAR = re.compile(
    "(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,8}\U000e007f)" + f"|[{_INVISIBLE}]"
)
# In labels and names of columns none of it means anything, nor do selectors of an emoji's form.
_UNSEEN = re.compile(f"[{_INVISIBLE}\u034f\ufe00-\ufe0f]")
# Only whole entities: "AT&T", "R&D;" and "&copy" without its semicolon are words as they stand.
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_BLANK_CONTROLS = "\x0b\x0c\x1c\x1d\x1e\x1f\x85"  # they part words as a blank does
_JOINERS = "\u200c\u200d"


class Reason(StrEnum):
    """Why a row is in none of the parts."""

    BROKEN_ROW = "broken row"  # cells too many or too few, quotes that do not match, no JSON, NUL bytes
    UNKNOWN_LABEL = "unknown label"
    NO_LABEL = "no label"
    MIDDLE_STARS = "middle stars"  # neither above nor below the stated threshold
    TOO_LONG = "too long"  # more tokens than the model that will be trained may see
    EMPTY = "empty"
    REPEAT = "repeat"
    BOTH_LABELS = "more than one label"
    LEAK = "as a held-out review"  # the same, or nearly so, stands in the part that is tested on
    SURPLUS = "surplus"  # nothing is wrong with it: left out to balance the classes or by the limit on training


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that was left out."""

    review: Review
    reason: Reason
    detail: str = ""


@lru_cache(maxsize=65536)
def _keep_pictures(run: str) -> str:
    """Return what counts in a run of characters that are no words: emoji and other pictures, and combining marks."""
    return "".join(
        char
        for char in run
        if (category := unicodedata.category(char)) == "So"
        or (category[0] == "M" and ord(char) not in _VARIATION_SELECTORS)
    )


def normalise_text(text: str) -> str:
    """Return the form in which two texts are compared: NFKC, no case, no punctuation, no spaces.

    Emoji count, because they can be all the sentiment there is. A text of punctuation alone is compared by its
    punctuation, so that ":)" and ":(" differ. Only a blank text gives "".

    Example:
        >>> normalise_text("ＯＫ， 很好！！") == normalise_text("ok很好。")
        True
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    words = _NOT_A_WORD.sub(lambda run: _keep_pictures(run[0]), folded)
    if words:
        return unicodedata.normalize("NFKC", words)
    return "".join(char for char in folded if unicodedata.category(char)[0] not in "ZC")


def clean_text(text: str) -> tuple[str, dict[str, int]]:
    """Return a review without what no reader sees or means, and how many changes of each kind that took.

    Words, punctuation, line breaks, emoji and full-width forms stay as they are. HTML entities become the characters
    they stand for, once; control characters go (those that part words become blanks); invisible characters go unless
    they mean something where they stand: joiners within emoji and within scripts that join letters, direction marks
    beside letters that run from right to left, tags of a flag; blanks around the review go.

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
    return stripped, changes


def drop_unseen(word: str) -> str:
    """Return a label or a name without the characters that nobody sees.

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
            return match[0]  # no entity that there is, or none of a character
        n_replaced += 1
        return char

    return (_ENTITY.sub(replace, text), n_replaced) if "&" in text else (text, 0)


def _drop_control(match: re.Match[str]) -> str:
    return " " if match[0] in _BLANK_CONTROLS else ""


def _drop_invisible(text: str) -> str:
    """Return a text without the invisible characters that mean nothing where they stand."""
    has_leftwards: bool | None = None

    def judge(match: re.Match[str]) -> str:
        nonlocal has_leftwards
        char, start, end = match[0], match.start(), match.end()
        if match[1] is not None:
            return char
        if char in _JOINERS:
            return (
                char if start > 0 and end < len(text) and _can_join(text[start - 1]) and _can_join(text[end]) else ""
            )
        if _is_direction_mark(char):
            if has_leftwards is None:
                has_leftwards = any(
                    unicodedata.bidirectional(other) in ("R", "AL") for other in text if not _is_direction_mark(other)
                )
            return char if has_leftwards else ""
        return ""

    return _INVISIBLE_CHAR.sub(judge, text)


def _can_join(char: str) -> bool:
    """Whether a joiner beside this character can mean something: pictures, and scripts that join letters."""
    if char.isascii():
        return False
    category = unicodedata.category(char)
    if category in ("So", "Sk") or category[0] == "M":
        return True
    name = unicodedata.name(char, "")
    return category[0] == "L" and not name.startswith(("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "LATIN", "FULLWIDTH"))


def _is_direction_mark(char: str) -> bool:
    return char in "\u200e\u200f" or "\u202a" <= char <= "\u202e" or "\u2066" <= char <= "\u2069"
