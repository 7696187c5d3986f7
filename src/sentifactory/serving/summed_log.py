"""A line in the log when something happens, and once a minute how often it has happened since."""

from __future__ import annotations

import asyncio
from collections import Counter

from sentifactory.progress import say

EVERY_S = 60.0
_NAMED = 3  # kinds in one line; the rest is counted together
_LONGEST_KIND = 120  # characters
_KEPT_KINDS = 100  # who attacks chooses host names: no more of them are remembered


class SummedLog:
    """Counts what happens within an event loop, by kind.

    Args:
        words: what happened, before the counts.
        every_s: seconds between two lines.
    """

    def __init__(self, words: str, every_s: float = EVERY_S) -> None:
        self._words = words
        self._every_s = every_s
        self._counts: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def count(self, kind: str) -> None:
        """Count one; the first is told at once."""
        known = kind if kind in self._counts or len(self._counts) < _KEPT_KINDS else "others"
        self._counts[known[:_LONGEST_KIND]] += 1
        if self._timer is None:
            self._tell()

    def _tell(self) -> None:
        self._timer = None
        if not self._counts:
            return
        named = self._counts.most_common(_NAMED)
        rest = self._counts.total() - sum(number for _, number in named)
        told = [f"{number} x {kind}" for kind, number in named] + ([f"{rest} x other"] if rest else [])
        self._counts.clear()
        say(f"{self._words}: {'; '.join(told)}")
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._tell)
