"""Formats times, sizes, percentages, number ranges, Markdown tables and quoted texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sentifactory.bilingual import Sentence

CELL_CHARS = 40  # of a label or an answer in a message


DASH = "–"


def format_bytes(count: int | None) -> str:
    """Return a size.

    Example:
        >>> format_bytes(253_000_000), format_bytes(4_000), format_bytes(None)
        ('253 MB', '<1 MB', '–')
    """
    if not count:
        return DASH
    if count < 1e6:
        return "<1 MB"
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def name_seconds(seconds: float | None) -> Sentence:
    """Return a time as a number with its unit.

    Example:
        >>> name_seconds(8.4).zh, name_seconds(665).zh, name_seconds(7300).zh, name_seconds(0.01).en
        ('8.4 秒', '11.1 分钟', '2.0 小时', '<0.1 s')
    """
    if seconds is None:
        return Sentence(DASH, DASH)
    if 0 < seconds < 0.05:
        return Sentence("<0.1 s", "<0.1 秒")
    size, en, zh = (1, "s", "秒") if seconds < 60 else (60, "min", "分钟") if seconds < 3600 else (3600, "h", "小时")
    number = f"{seconds / size:.1f}"
    return Sentence(f"{number} {en}", f"{number} {zh}")


def format_seconds(seconds: float | None) -> str:
    """Return a time in English.

    Example:
        >>> format_seconds(8.4), format_seconds(665), format_seconds(7300), format_seconds(None)
        ('8.4 s', '11.1 min', '2.0 h', '–')
    """
    return name_seconds(seconds).en


def name_duration(seconds: float) -> Sentence:
    """Return a time in words, to two units at most.

    Example:
        >>> name_duration(8.4).en, name_duration(665).zh, name_duration(7300).en
        ('8 s', '11 分 5 秒', '2 h 1 min')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return Sentence(f"{whole} s", f"{whole} 秒")
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return Sentence(
            f"{minutes} min{f' {rest} s' if rest else ''}", f"{minutes} 分{f' {rest} 秒' if rest else '钟'}"
        )
    hours, rest = divmod(whole, 3600)
    minutes = rest // 60
    return Sentence(
        f"{hours} h{f' {minutes} min' if minutes else ''}", f"{hours} 小时{f' {minutes} 分' if minutes else ''}"
    )


def escape(text: str) -> str:
    """Return a text with Markdown and HTML characters escaped, on one line."""
    for mark in "\\`*_<>|":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


def build_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table; the first row is the header, all columns but the first align right."""
    header, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rule = ["---", *["---:"] * (len(header) - 1)]
    return [f"| {' | '.join(row)} |" for row in (header, rule, *body)]


def cut_text(text: str, n_chars: int) -> str:
    """Return a text cut to `n_chars` characters, with an ellipsis if it was longer.

    Example:
        >>> cut_text("还会再来", 2), cut_text("很好", 2)
        ('还会…', '很好')
    """
    return text if len(text) <= n_chars else text[:n_chars] + "…"


def format_share(share: float) -> str:
    """Return a share as a percentage; a nonzero share is never shown as 0.0%.

    Example:
        >>> format_share(0.1234), format_share(0.0001), format_share(0)
        ('12.3%', '<0.1%', '0.0%')
    """
    return "<0.1%" if 0 < share < 0.0005 else f"{100 * share:.1f}%"


def format_spans(numbers: Iterable[int], separator: str = ", ") -> str:
    """Return numbers in ascending order, consecutive ones as a range.

    Example:
        >>> format_spans([3, 9, 5, 4]), format_spans([0, 1, 5], separator=",")
        ('3-5, 9', '0-1,5')
    """
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return separator.join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
