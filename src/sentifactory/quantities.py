"""Times and sizes as tables and sentences show them; a dash where there is none."""

from __future__ import annotations

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


def format_seconds(seconds: float | None) -> str:
    """Return a time.

    Example:
        >>> format_seconds(8.4), format_seconds(665), format_seconds(7300), format_seconds(None)
        ('8.4 s', '11.1 min', '2.0 h', '–')
    """
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
