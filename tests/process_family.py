"""Processes that tests start and kill: all of a family are found, and none is left behind."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

ASK_DRIVER = Path(__file__).parent / "engines" / "ask_driver.py"
PR_SET_CHILD_SUBREAPER = 36


class Family:
    """All processes that were started since the watch began, orphans included."""

    def __init__(self) -> None:
        self._before = {process.pid for process in psutil.Process().children(recursive=True)}

    def list_alive(self) -> list[psutil.Process]:
        alive = []
        for process in psutil.Process().children(recursive=True):
            try:
                if process.pid not in self._before and process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(process)
            except psutil.NoSuchProcess:
                continue
        return alive

    def wait_for(self, number: int, within_s: float) -> list[psutil.Process]:
        """Wait until that many processes are alive and return them, parents before children."""
        deadline = time.monotonic() + within_s
        while len(alive := self.list_alive()) != number and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(alive) == number, list_arguments(alive)
        return alive

    def find(self, word: str, within_s: float, pause_s: float = 0.02) -> psutil.Process:
        """Wait for a process with this word as an argument and return it; looking slows down what is looked for."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            for process, words in list_arguments(self.list_alive()):
                if any(word in argument for argument in words):
                    return process
            time.sleep(pause_s)
        raise AssertionError(f"no process with {word!r} within {within_s} s")


def list_arguments(processes: Iterable[psutil.Process]) -> list[tuple[psutil.Process, list[str]]]:
    """The processes with their arguments, less those that have ended meanwhile: a zombie has none any more."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found.append((process, process.cmdline()))
    return found


@contextmanager
def adopt_orphans() -> Iterator[Family]:
    """Adopt every orphan below this process, so that no survivor can hide by losing its parent."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    watch = Family()
    yield watch
    for process in watch.list_alive():
        process.kill()
    prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@contextmanager
def run_driver(model: Path | str, reviews: int = 1000, *, waits: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Start a process that asks as the comparison does, if told so only after a line; it is collected at the end."""
    command = [sys.executable, str(ASK_DRIVER), str(model), str(reviews)]
    streams = {"stdin": subprocess.PIPE if waits else subprocess.DEVNULL, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **streams, stderr=subprocess.DEVNULL, text=True) as driver:
        try:
            yield driver
        finally:
            driver.kill()


class DrivenVllm(NamedTuple):
    """A real vLLM that another process has started: that process, all that it started, and where vLLM answers whom."""

    driver: subprocess.Popen[str]
    family: Family
    address: str
    key: str
