"""One progress display for every long step: a bar with an ETA on a terminal, plain lines elsewhere; always stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

PLAIN_LINE_EVERY_S = 10.0

_IS_HIDDEN = ContextVar("progress_is_hidden", default=False)


class Progress(Protocol):
    """What a long step tells its display."""

    def advance(self, amount: int = 1) -> None:
        """Count `amount` more units as done."""

    def note(self, text: str) -> None:
        """Show a short word beside the bar, such as the current loss."""


class _NoProgress:
    """Nothing, for steps of a longer one that has a display of its own."""

    def advance(self, amount: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class _PlainProgress:
    """A line at the start, every ten seconds and at the end, for logs and pipes."""

    def __init__(self, description: str, total: int | None, unit: str) -> None:
        self._description = description
        self._total = total
        self._unit = unit
        self._done = 0
        self._word = ""
        self._start = time.monotonic()
        self._last_line = self._start

    def advance(self, amount: int = 1) -> None:
        self._done += amount
        if time.monotonic() - self._last_line >= PLAIN_LINE_EVERY_S:
            self.write_line()

    def note(self, text: str) -> None:
        self._word = text
        if self._total is None and time.monotonic() - self._last_line >= PLAIN_LINE_EVERY_S:
            self.write_line()

    def write_line(self) -> None:
        now = time.monotonic()
        elapsed_s = now - self._start
        parts = [f"{elapsed_s:.0f} s"]
        if self._total is not None:
            parts.insert(0, f"{self._done}/{self._total} {self._unit}".rstrip())
            if 0 < self._done < self._total:
                parts.append(f"{elapsed_s / self._done * (self._total - self._done):.0f} s left")
        if self._word:
            parts.append(self._word)
        print(f"{self._description}: {', '.join(parts)}", file=sys.stderr, flush=True)
        self._last_line = now


class _TerminalProgress:
    """A rich progress bar."""

    def __init__(self, bar: object, task_id: object) -> None:
        self._bar = bar
        self._task_id = task_id

    def advance(self, amount: int = 1) -> None:
        self._bar.advance(self._task_id, amount)  # type: ignore[attr-defined]

    def note(self, text: str) -> None:
        self._bar.update(self._task_id, word=text)  # type: ignore[attr-defined]


def say(text: str) -> None:
    """Print one plain line about what is being done, on stderr."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def hide_progress() -> Iterator[None]:
    """Show no progress of what is done within the block (in the same thread)."""
    token = _IS_HIDDEN.set(True)
    try:
        yield
    finally:
        _IS_HIDDEN.reset(token)


@contextmanager
def show_progress(description: str, total: int | None = None, unit: str = "") -> Iterator[Progress]:
    """Show how far a long step has come.

    Args:
        description: what is being done, such as "Asking base".
        total: number of units, or None where it is not known (elapsed time is shown alone).
        unit: what is counted, such as "reviews".
    """
    if _IS_HIDDEN.get():
        yield _NoProgress()
        return
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} " + unit)]
        if total is None:
            columns = [TextColumn("{task.description}"), BarColumn()]
        columns += [TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[word]}")]
        with RichProgress(*columns, console=Console(stderr=True)) as bar:
            yield _TerminalProgress(bar, bar.add_task(description, total=total, word=""))
        return
    plain = _PlainProgress(description, total, unit)
    plain.write_line()
    try:
        yield plain
    finally:
        plain.write_line()
