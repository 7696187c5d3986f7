"""Runs a command in a child process that ends with this one."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Sequence

from sentifactory.system.stop_signals import StoppedError
from sentifactory.system.supervisor import PR_SET_PDEATHSIG, call_prctl

INTERRUPT_WAIT_S = 30.0


def run_child_process(command: Sequence[str]) -> int:
    """Run a command and return its exit code, negative if a signal ended it.

    Its stdout goes to our stderr, because stdout carries our own result. It gets SIGINT when this process ends.

    Raises:
        StoppedError: after Ctrl-C or SIGTERM, when the command has saved its progress and ended.
    """
    child = subprocess.Popen(command, stdout=sys.stderr.fileno(), preexec_fn=interrupt_with_parent)
    try:
        return child.wait()
    except (KeyboardInterrupt, StoppedError) as stop:
        number = stop.number if isinstance(stop, StoppedError) else signal.SIGINT
        # The terminal has sent Ctrl-C to the child as well; SIGTERM came to this process alone. It gets time to save.
        try:
            if number == signal.SIGTERM:
                child.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                child.wait(INTERRUPT_WAIT_S)
        finally:
            child.kill()
            child.wait()
        raise StoppedError("Stopped, with everything that is finished kept.", number) from None


def interrupt_with_parent() -> None:
    """Make this process, which has just been forked, get SIGINT when its parent ends."""
    # A background command of a shell script inherits an ignored SIGINT and would then outlive its parent.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    call_prctl(PR_SET_PDEATHSIG, signal.SIGINT)
