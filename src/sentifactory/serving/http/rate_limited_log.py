"""A log line for the first event, then at most one a minute with the number of events since."""

from __future__ import annotations

import asyncio
from collections import Counter

from sentifactory.system.progress import say

INTERVAL_S = 60.0
_KINDS_IN_LINE = 3  # the rest is counted together
_MAX_KIND_CHARS = 120
_ONE_LINE = str.maketrans({"\n": r"\n", "\r": r"\r"})
_MAX_KINDS = 100  # kinds hold host names that an attacker chooses: no more of them are kept


class RateLimitedLog:
    """Counts events by kind, within an event loop.

    Args:
        title: begins every line.
        interval_s: seconds between two lines.
    """

    def __init__(self, title: str, interval_s: float = INTERVAL_S) -> None:
        self._title = title
        self._interval_s = interval_s
        self._counts: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def count(self, kind: str) -> None:
        """Count an event; the first is logged at once."""
        kind = kind.translate(_ONE_LINE)
        kept = kind if kind in self._counts or len(self._counts) < _MAX_KINDS else "others"
        self._counts[kept[:_MAX_KIND_CHARS]] += 1
        if self._timer is None:
            self._write_line()

    def _write_line(self) -> None:
        self._timer = None
        if not self._counts:
            return
        named = self._counts.most_common(_KINDS_IN_LINE)
        rest = self._counts.total() - sum(number for _, number in named)
        parts = [f"{number} x {kind}" for kind, number in named] + ([f"{rest} x other"] if rest else [])
        self._counts.clear()
        say(f"{self._title}: {'; '.join(parts)}")
        self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._write_line)
