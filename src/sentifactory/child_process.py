"""Starts a program below this one, so that its memory is its own and its crash is not ours."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Sequence

from sentifactory.supervisor import PR_SET_PDEATHSIG, call_prctl

INTERRUPT_WAIT_S = 30.0


def run_child_process(command: Sequence[str]) -> int:
    """Run a program and return its exit code, negative where a signal ended it.

    Its stdout goes to our stderr: stdout is for our own result. When this process ends, however, it gets Ctrl-C.
    """
    child = subprocess.Popen(command, stdout=sys.stderr.fileno(), preexec_fn=_end_with_parent)
    try:
        return child.wait()
    except KeyboardInterrupt:
        # The terminal has sent Ctrl-C to the child as well: it gets time to write down how far it came.
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(INTERRUPT_WAIT_S)
        finally:
            child.kill()
        raise


def _end_with_parent() -> None:
    # A command in the background of a script inherits that Ctrl-C is ignored, and would outlive its parent then.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    call_prctl(PR_SET_PDEATHSIG, signal.SIGINT)
