"""The progress display of every long step, on stderr: a bar with an ETA on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from sentifactory.errors import show_controls
from sentifactory.redaction import mask_text
from sentifactory.system.ranks import is_main_process

PLAIN_LINE_EVERY_S = 10.0

_IS_HIDDEN = ContextVar("progress_is_hidden", default=False)


class Progress(Protocol):
    """The progress of one step."""

    def advance(self, amount: int = 1) -> None:
        """Count `amount` more units as done."""

    def note(self, text: str) -> None:
        """Show a short text next to the bar, such as the current loss."""


class _NoProgress:
    """Shows nothing; for steps within a longer step that has its own display."""

    def advance(self, amount: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class _PlainProgress:
    """Prints a line at the start, every ten seconds and at the end, for logs and pipes."""

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
    """Print a line on stderr, with secrets masked and terminal control characters escaped.

    Of several processes of one command, only the main one prints.
    """
    if not is_main_process():
        return
    print(show_controls(mask_text(text), keeps="\n\t"), file=sys.stderr, flush=True)


@contextmanager
def hide_progress() -> Iterator[None]:
    """Show no progress within the block (in the same thread)."""
    token = _IS_HIDDEN.set(True)
    try:
        yield
    finally:
        _IS_HIDDEN.reset(token)


@contextmanager
def show_progress(description: str, total: int | None = None, unit: str = "") -> Iterator[Progress]:
    """Show the progress of a long step.

    Args:
        description: of the step, such as "Asking base".
        total: number of units; None if unknown, which shows the elapsed time alone.
        unit: what is counted, such as "reviews".
    """
    if _IS_HIDDEN.get() or not is_main_process():
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
        # Nothing of stdout: a trainer's output goes to its log, and a command's result comes after the bar.
        with RichProgress(*columns, console=Console(stderr=True), redirect_stdout=False) as bar:
            yield _TerminalProgress(bar, bar.add_task(description, total=total, word=""))
        return
    plain = _PlainProgress(description, total, unit)
    plain.write_line()
    try:
        yield plain
    finally:
        plain.write_line()


@contextmanager
def hide_transformers_bars() -> Iterator[None]:
    """Hide transformers' progress bars; the caller shows its own progress."""
    from transformers.utils import logging

    has_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if has_bars:
            logging.enable_progress_bar()
