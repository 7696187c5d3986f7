"""Calls a function in a process of its own, so that memory and crashes are not those of this process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from sentifactory.errors import EngineError, SentiFactoryError
from sentifactory.system.supervisor import PR_SET_PDEATHSIG, call_prctl

_END_S = 10.0
_POLL_S = 1.0


def call_in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns in a new process, which ends before this call does.

    Args:
        function: of a module, so that the process can import it.
        arguments: of the function; they and what it returns must be picklable.

    Raises:
        SentiFactoryError: what the function raises.
        EngineError: when the process is killed, as it is where memory is short.
        RuntimeError: with the traceback, for every other exception.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(theirs, function, arguments), daemon=True)
    process.start()
    theirs.close()  # so that the pipe ends when the process does
    try:
        result, error = ours.recv()
    except EOFError:
        raise describe_exit() from None
    finally:
        end_process(process, ours)
    if error is not None:
        raise error
    return result


def describe_exit(name: str = "") -> EngineError:
    """Return the error for a process of models that has ended by itself.

    Args:
        name: of the engine.
    """
    return EngineError(
        "The engine's process has ended",
        where=name,
        next_step="check whether it ran out of memory",
        code="engine-ended",
    )


def end_process(process: Any, pipe: Any) -> None:
    """Close our end of a process's pipe, at which it ends, and end it by force if it does not."""
    pipe.close()
    process.join(_END_S)
    if process.is_alive():
        process.kill()
        process.join()


def end_with_parent() -> None:
    """Make this process end when its parent does, and leave Ctrl-C to the parent."""
    if sys.platform.startswith("linux"):
        call_prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_end_after, args=(os.getppid(),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os._exit(1)


def _send_result(pipe: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    end_with_parent()
    try:
        pipe.send((function(*arguments), None))
    except SentiFactoryError as error:
        pipe.send((None, error))
    except Exception:
        pipe.send((None, RuntimeError(traceback.format_exc())))
