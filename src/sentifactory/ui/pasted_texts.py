"""The reviews that are typed or pasted into the page."""

from __future__ import annotations

from sentifactory.clean_text import clean_text
from sentifactory.records import Review
from sentifactory.ui.error_sentences import PageError

MAX_TEXTS = 200
MAX_TEXT_CHARS = 2000  # of one text


def split_texts(texts: str) -> list[Review]:
    """Return the reviews in a text, one per line.

    Raises:
        PageError: when there is none, or they are too many or too long.
    """
    lines = [line.strip() for line in texts.splitlines() if clean_text(line)[0]]
    longest = max(map(len, lines), default=0)
    if not lines or len(lines) > MAX_TEXTS or longest > MAX_TEXT_CHARS:
        raise PageError(
            f"There are {len(lines)} reviews, the longest of {longest} characters. Type or paste 1 to {MAX_TEXTS} "
            f"reviews of up to {MAX_TEXT_CHARS} characters, one per line.",
            f"共 {len(lines)} 条评论，最长 {longest} 字。请输入 1 至 {MAX_TEXTS} 条评论，每行一条，"
            f"每条不超过 {MAX_TEXT_CHARS} 字。",
            code="texts",
        )
    return [Review(line) for line in lines]
