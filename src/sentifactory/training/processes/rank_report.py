"""How a process of a run tells its launcher why it ended: through the file that torchrun reads its errors from.

The launcher reports one cause, in the words that a single process would have used. Under `torchrun` itself the main
process prints its own error, and torchrun shows the text of the others in its table.
"""

from __future__ import annotations

import json
import os
import signal
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from sentifactory import errors
from sentifactory.errors import EXIT_DEFECT, EXIT_INTERRUPTED, ConfigError, SentiFactoryError
from sentifactory.system.ranks import has_launcher, is_main_process, is_rank
from sentifactory.system.stop_signals import StoppedError
from sentifactory.system.supervisor import PR_SET_PDEATHSIG, call_prctl
from sentifactory.training.run.collectives import is_lost_connection

_FILE_VARIABLE = "TORCHELASTIC_ERROR_FILE"
_KEY = "sentifactory"
# The main process writes the run card; when another one ends, the launcher ends all of them.
_MAIN_ENDS_WITHIN_S = 30.0

ERROR, STOPPED, INTERRUPTED, LOST, DEFECT = "error", "stopped", "interrupted", "lost connection", "defect"


class RankDefectError(Exception):
    """An unexpected error in a process of a run; its traceback is in the notes."""


@contextmanager
def report_to_launcher() -> Iterator[None]:
    """Report the error that ends this process, and end it with its launcher; does nothing in a single process."""
    if not is_rank():
        yield
        return
    if _FILE_VARIABLE in os.environ:
        call_prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        yield
    except BaseException as error:
        report = describe_end(error)
        _write(report, error)
        is_agreed = report["kind"] == STOPPED or getattr(error, "is_reported_by_main", False)
        if is_agreed and not is_main_process():
            time.sleep(_MAIN_ENDS_WITHIN_S)
        if has_launcher():
            raise SystemExit(report["exit_code"]) from error
        raise


def describe_end(error: BaseException) -> dict[str, Any]:
    """Return what the launcher needs to raise an error again, as JSON values."""
    if isinstance(error, SentiFactoryError):
        fields = {name: getattr(error, name) for name in ("what", "where", "expected", "next_step", "code")}
        return {"kind": ERROR, "class": type(error).__name__, "fields": fields, "exit_code": error.exit_code}
    if isinstance(error, StoppedError):
        return {"kind": STOPPED, "what": error.what, "number": error.number, "exit_code": error.code}
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return {"kind": INTERRUPTED, "exit_code": EXIT_INTERRUPTED}
    kind = LOST if is_lost_connection(error) else DEFECT
    text = f"{type(error).__name__}: {error}"
    return {"kind": kind, "what": text, "traceback": traceback.format_exc(), "exit_code": EXIT_DEFECT}


def _write(report: Mapping[str, Any], error: BaseException) -> None:
    """Write a report as torchrun expects it."""
    if not (file := os.environ.get(_FILE_VARIABLE)):
        return
    extra = {"py_callstack": str(error) or type(error).__name__, "timestamp": str(int(time.time()))}
    with suppress(OSError):
        Path(file).write_text(json.dumps({"message": {"message": str(error), "extraInfo": extra, _KEY: report}}))


def raise_cause(failures: Mapping[int, Any], total: int, read_tail: Any) -> NoReturn:
    """Raise the error that ended a run.

    Args:
        failures: torch's ProcessFailure by rank; a process that lost the connection to another is no cause.
        total: number of processes of the run.
        read_tail: returns the last words that the process of a rank wrote, for one that wrote no report.

    Raises:
        SentiFactoryError: that a process reported.
        StoppedError: when the run was stopped, or a process was killed.
        KeyboardInterrupt: when it was interrupted before the first step.
        RankDefectError: for an unexpected error.
    """

    def read_report(rank: int) -> dict[str, Any]:
        message = failures[rank].message
        return dict(message.get(_KEY) or {}) if isinstance(message, dict) else {}

    reports = {rank: read_report(rank) for rank in failures}
    rank = min(failures, key=lambda one: (reports[one].get("kind") == LOST, failures[one].timestamp, one))
    report, code = reports[rank], failures[rank].exitcode
    kind = report.get("kind")
    if kind == ERROR:
        raise getattr(errors, report["class"], ConfigError)(**report["fields"])
    if kind == STOPPED:
        raise StoppedError(report["what"], report["number"])
    if kind == INTERRUPTED:
        raise KeyboardInterrupt
    if kind == LOST:
        raise StoppedError("A process on another machine has ended, and those of this one with it.", signal.SIGTERM)
    name = f"process {rank + 1} of {total}"
    if code < 0:
        number = signal.Signals(-code)
        reason = ", perhaps because the memory was full" if number == signal.SIGKILL else ""
        raise StoppedError(f"{name.capitalize()} was ended by {number.name}{reason}, and all others with it.", number)
    defect = RankDefectError(f"{name}: {report.get('what', f'exit code {code}')}")
    defect.add_note(report.get("traceback") or read_tail(failures[rank].local_rank))
    raise defect
