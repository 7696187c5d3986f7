"""A watch over all processes that a test starts, orphans included."""

from __future__ import annotations

import time

import psutil

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
        assert len(alive) == number, [process.cmdline() for process in alive]
        return alive

    def find(self, word: str, within_s: float) -> psutil.Process:
        """Wait for a process with this word as an argument and return it."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            for process in self.list_alive():
                try:
                    if any(word in argument for argument in process.cmdline()):
                        return process
                except psutil.NoSuchProcess:
                    continue
            time.sleep(0.02)
        raise AssertionError(f"no process with {word!r} within {within_s} s")
