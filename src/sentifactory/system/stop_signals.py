"""Ctrl-C and SIGTERM: the command says what is done and how to go on, and leaves nothing half-written.

`raise_on_signals` is around every command (`cli.run_guarded`). What is kept is noted where it is kept: files and
folders by `atomic`, answers by the journals. So the last line of a stopped command is true of every command.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

ONE_REQUEST_S = 1.0
_SHOWN_PLACES = 3
_AGAIN_AFTER_S = 0.05
# Place of what is kept, and what it is: "" for a file or folder that is written. None outside of `note_kept_places`.
_kept: dict[Path, str] | None = None


class StoppedError(SystemExit):
    """A signal ended the command. `cli.run_guarded` says what is done, and the command to go on with.

    Not a KeyboardInterrupt, which typer turns into an exit without a word.

    Args:
        what: what is done, as a sentence; "" for what the process has noted by `note_kept`.
        number: of the signal.
        continues: whether the same command continues from there; not asked where `what` is "".

    Attributes:
        code: the exit code, as a shell reports a program that the signal ended.
    """

    def __init__(self, what: str = "", number: int = signal.SIGINT, *, continues: bool = True) -> None:
        super().__init__(128 + number)
        self.what = what
        self.number = number
        self.continues = continues

    def __str__(self) -> str:
        """Return what is done."""
        return self.what or "Stopped."


class ReportedExit(SystemExit):
    """A process of a run ends without a word, because its launcher says how the run ended."""


class StopRequests:
    """Counts the requests to stop. Signals within `ONE_REQUEST_S` of one belong to it.

    A signal to a process group reaches a child directly, and again through its parent, which sends it on.

    Attributes:
        count: of the requests.
    """

    def __init__(self) -> None:
        self.count = 0
        self._asked_s = -math.inf

    def add(self) -> bool:
        """Return whether a signal that has just come is a new request, and count it."""
        now_s = time.monotonic()
        if now_s - self._asked_s < ONE_REQUEST_S:
            return False
        self._asked_s = now_s
        self.count += 1
        return True


def end_by(number: int) -> None:
    """End this process by a signal as if it had no handler; Ctrl-C raises a KeyboardInterrupt."""
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.kill(os.getpid(), number)


class CtrlCError(KeyboardInterrupt):
    """Ctrl-C, as an exception of which one can see whether it was lost."""

    number = signal.SIGINT


@contextmanager
def raise_on_signals() -> Iterator[list[int]]:
    """Raise a `StoppedError` on SIGTERM and a KeyboardInterrupt on Ctrl-C within the block.

    Gives the signals that were raised: an event loop may turn them into errors of its own.

    A second SIGTERM, `ONE_REQUEST_S` or more after the first, ends the process at once. Without effect outside the
    main thread, and in forked processes, which SIGTERM ends as usual. Ctrl-C stays ignored where it is, as in a
    script's background jobs.

    Modules in C may clear an exception while they are imported, and Python ignores one that is raised in a finalizer
    or in a callback of a weak reference. Then the signal is sent again, until it is heard.
    """
    if threading.current_thread() is not threading.main_thread():
        yield []
        return
    owner, is_over, requests = os.getpid(), threading.Event(), StopRequests()
    heard: list[int] = []
    sent: list[int] = []

    def send_again(number: int) -> None:
        if not is_over.is_set() and len(sent) < len(heard):  # once for each, even if it is lost in both ways
            sent.append(number)
            threading.Timer(_AGAIN_AFTER_S, os.kill, (owner, number)).start()

    def end_at_once(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner or requests.add():
            end_by(number)

    def raise_stopped(number: int, frame: FrameType | None) -> NoReturn:
        if os.getpid() != owner and number == signal.SIGTERM:
            end_by(number)
        requests.add()
        heard.append(number)
        stop = CtrlCError() if number == signal.SIGINT else StoppedError(number=number)
        if os.getpid() == owner and _is_importing(frame):
            weakref.finalize(stop, send_again, number).atexit = False
        elif number == signal.SIGTERM:
            signal.signal(number, end_at_once)
        try:
            raise stop
        finally:
            del stop  # the exception holds this frame, and would never be seen to be lost if the frame held it

    def hear_ignored(ignored: sys.UnraisableHookArgs) -> None:
        if not isinstance(ignored.exc_value, CtrlCError | StoppedError) or os.getpid() != owner:
            former_hook(ignored)
            return
        number = ignored.exc_value.number
        signal.signal(number, raise_stopped)
        send_again(number)

    is_ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    numbers = (signal.SIGTERM,) if is_ignored else (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.signal(number, raise_stopped) for number in numbers}
    former_hook, sys.unraisablehook = sys.unraisablehook, hear_ignored
    try:
        yield heard
    finally:
        is_over.set()
        sys.unraisablehook = former_hook
        for number, handler in previous.items():
            signal.signal(number, handler)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextmanager
def note_kept_places() -> Iterator[None]:
    """Collect within the block what is kept if a signal ends it."""
    global _kept
    former, _kept = _kept, {}
    try:
        yield
    finally:
        _kept = former


def note_kept(place: str | Path, what: str = "") -> None:
    """Note that a place keeps something when the command ends now; a later note about it replaces this one.

    Args:
        place: a file or folder. It is mentioned only if it is there when the command ends.
        what: what it keeps, such as "30 of 100 answers", from which the same command continues; "" for a result that
            is written.
    """
    if _kept is not None:
        _kept[Path(place)] = what


def forget_kept(place: str | Path) -> None:
    """Take back a note about a file that the user has not asked for."""
    if _kept is not None:
        _kept.pop(Path(place), None)


def describe_kept() -> tuple[str, bool]:
    """Return what is kept, as a sentence, and whether the same command continues from it."""
    places = {place: what for place, what in (_kept or {}).items() if os.path.lexists(place)}
    journals = [f"{what} ({place})" for place, what in places.items() if what]
    written = [str(place) for place, what in places.items() if not what and not places.keys() & {*place.parents}]
    more = f" and {len(written) - _SHOWN_PLACES} more" if len(written) > _SHOWN_PLACES else ""
    parts = [f"Kept: {'; '.join(journals)}."] if journals else []
    parts += [f"Written: {', '.join(written[:_SHOWN_PLACES])}{more}."] if written else []
    return " ".join(["Stopped.", *parts] if parts else ["Stopped: nothing was written."]), bool(journals)
