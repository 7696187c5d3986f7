"""The most memory that a process and its children hold, watched from outside while they work. Linux only.

Not covered: the memory of a GPU.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from sentifactory.proc_tables import read_kilobytes
from sentifactory.supervisor import list_descendants

EVERY_S = 0.25


class MemoryWatch:
    """Watches all processes that begin below one, from entering the `with` block to leaving it.

    Shared pages are counted once (the kernel's proportional set size), so that a server of several processes is not
    counted several times.

    Args:
        parent: the process whose children (and theirs) are watched; not itself, nor those that it has already.
    """

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._before: frozenset[int] = frozenset()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_bytes: int | None = None

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._before = frozenset(list_descendants(self._parent))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(EVERY_S):
            ours = (process for process in list_descendants(self._parent) if process not in self._before)
            held = sum(map(read_memory, ours))
            if held:
                self.peak_bytes = max(self.peak_bytes or 0, held)


def read_memory(process: int) -> int:
    """Return the bytes that a process holds, shared pages by share; 0 for one that has ended."""
    return read_kilobytes(f"/proc/{process}/smaps_rollup", "Pss:")
