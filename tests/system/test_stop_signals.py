"""A signal is heard wherever Python is when it comes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable

import pytest

from sentifactory.system.stop_signals import ONE_REQUEST_S, CtrlCError, StoppedError, raise_on_signals


class Finalized:
    """Calls a function when it is freed, where Python ignores every exception."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function

    def __del__(self) -> None:
        self._function()


def free_with_finalizer(function: Callable[[], None]) -> None:
    Finalized(function)


def free_with_callback(function: Callable[[], None]) -> None:
    thing = set[int]()
    watch = weakref.ref(thing, lambda _: function())
    del thing
    assert watch() is None


@pytest.mark.parametrize("free", [free_with_finalizer, free_with_callback])
@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, CtrlCError), (signal.SIGTERM, StoppedError)])
def test_a_signal_that_python_ignores_is_sent_again(
    free: Callable[[Callable[[], None]], None], number: signal.Signals, kind: type[BaseException]
) -> None:
    former = signal.getsignal(number)

    def be_interrupted() -> None:
        free(lambda: signal.raise_signal(number))
        time.sleep(10)

    with pytest.raises(kind), raise_on_signals() as heard:
        be_interrupted()
    assert heard == [number, number]
    assert signal.getsignal(number) == former


def test_a_second_sigterm_ends_the_process_at_once_unless_it_belongs_to_the_first() -> None:
    code = f"""
import signal, time
from sentifactory.system.stop_signals import StoppedError, raise_on_signals
with raise_on_signals():
    try:
        signal.raise_signal(signal.SIGTERM)
    except StoppedError:
        signal.raise_signal(signal.SIGTERM)
        print("one request", flush=True)
        time.sleep({1.1 * ONE_REQUEST_S})
        signal.raise_signal(signal.SIGTERM)
        print("still there")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "one request\n"), done.stderr
