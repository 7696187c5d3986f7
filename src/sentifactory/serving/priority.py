"""Lets the event loop go before the model: both want the same cores, and a refusal shall not wait for a batch.

Linux gives every thread a niceness of its own, and a new thread that of the one that made it: the threads that a
runtime starts when a model is loaded, or first used, are as nice as the thread that loads and uses it. Elsewhere
niceness is the whole process's, and nothing is done.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

ENGINE_NICENESS = 5  # above that of the event loop: it gets about a third of the share when both are busy

_Result = TypeVar("_Result")


def step_back() -> None:
    """Make the calling thread nicer than the process."""
    if sys.platform == "linux":
        with suppress(OSError):  # nicer than nice cannot be
            niceness = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness + ENGINE_NICENESS)


def load_behind(load: Callable[[], _Result]) -> _Result:
    """Return what a function loads, in a thread that has stepped back; raises what it raises."""
    with ThreadPoolExecutor(1, initializer=step_back) as loader:
        return loader.submit(load).result()
