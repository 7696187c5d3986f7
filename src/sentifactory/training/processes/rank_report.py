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
from sentifactory.errors import EXIT_DEFECT, ConfigError, SentiFactoryError
from sentifactory.system.ranks import has_launcher, is_main_process, is_rank
from sentifactory.system.stop_signals import ReportedExit, StoppedError, describe_kept
from sentifactory.system.supervisor import PR_SET_PDEATHSIG, call_prctl
from sentifactory.training.run.collectives import is_lost_connection

_FILE_VARIABLE = "TORCHELASTIC_ERROR_FILE"
_KEY = "sentifactory"
# The main process writes the run card; when another one ends, the launcher ends all of them.
_MAIN_ENDS_WITHIN_S = 30.0

ERROR, STOPPED, LOST, DEFECT = "error", "stopped", "lost connection", "defect"


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
        # What a signal interrupts is not agreed: the main process may be waiting for this one.
        is_agreed = bool(isinstance(error, StoppedError) and error.what)
        is_agreed = is_agreed or getattr(error, "is_reported_by_main", False)
        if is_agreed and not is_main_process():
            time.sleep(_MAIN_ENDS_WITHIN_S)
        if has_launcher():
            raise ReportedExit(report["exit_code"]) from error
        raise


def describe_end(error: BaseException) -> dict[str, Any]:
    """Return what the launcher needs to raise an error again, as JSON values."""
    if isinstance(error, SentiFactoryError):
        fields = {name: getattr(error, name) for name in ("what", "where", "expected", "next_step", "code")}
        return {"kind": ERROR, "class": type(error).__name__, "fields": fields, "exit_code": error.exit_code}
    if isinstance(error, KeyboardInterrupt | SystemExit):
        stop = error if isinstance(error, StoppedError) else StoppedError()
        what, continues = (stop.what, stop.continues) if stop.what else describe_kept()
        return {
            "kind": STOPPED, "what": what, "continues": continues, "number": stop.number, "exit_code": stop.code
        }  # fmt: skip
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


def is_stopped(failures: Mapping[int, Any]) -> bool:
    """Return whether the run ended because it was asked to stop.

    Args:
        failures: torch's ProcessFailure by rank; empty while all processes run.
    """
    return bool(failures) and _read_report(failures[_find_cause(failures)]).get("kind") == STOPPED


def _read_report(failure: Any) -> dict[str, Any]:
    message = failure.message
    return dict(message.get(_KEY) or {}) if isinstance(message, dict) else {}


def _find_cause(failures: Mapping[int, Any]) -> int:
    """Return the rank of the process that ended the run; torch then loses or stops the others, in the same second."""

    def sort_key(rank: int) -> tuple[Any, ...]:
        kind = _read_report(failures[rank]).get("kind")
        return kind == LOST, failures[rank].timestamp, kind == STOPPED, rank

    return min(failures, key=sort_key)


def raise_cause(failures: Mapping[int, Any], total: int, read_tail: Any) -> NoReturn:
    """Raise the error that ended a run.

    Args:
        failures: torch's ProcessFailure by rank; a process that lost the connection to another is no cause.
        total: number of processes of the run.
        read_tail: returns the last words that the process of a rank wrote, for one that wrote no report.

    Raises:
        SentiFactoryError: that a process reported.
        StoppedError: when the run was stopped, or a process was killed; its code is 130 after Ctrl-C.
        RankDefectError: for an unexpected error.
    """
    reports = {rank: _read_report(failure) for rank, failure in failures.items()}
    rank = _find_cause(failures)
    report, code = reports[rank], failures[rank].exitcode
    kind = report.get("kind")
    if kind == ERROR:
        raise getattr(errors, report["class"], ConfigError)(**report["fields"])
    if kind == STOPPED:  # the main process, the first that has stopped, knows what it has written
        report = reports[min(one for one in reports if reports[one].get("kind") == STOPPED)]
        raise StoppedError(report["what"], report["number"], continues=report["continues"])
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
