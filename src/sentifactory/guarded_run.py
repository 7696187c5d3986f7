"""Runs an entry point: errors and signals become one sentence on stderr and an exit code."""

from __future__ import annotations

import codecs
import io
import json
import os
import select
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import sentifactory
from sentifactory.errors import (
    EXIT_DEFECT,
    EXIT_INTERRUPTED,
    EXIT_READER_GONE,
    ConfigError,
    SentiFactoryError,
    show_controls,
)
from sentifactory.redaction import mask_arguments, mask_text
from sentifactory.system import progress_file
from sentifactory.system.atomic import explain_os_error
from sentifactory.system.command_line import describe_command
from sentifactory.system.extras import explain_missing_package
from sentifactory.system.file_lock import explain_missing_locks, lacks_locks
from sentifactory.system.network_settings import bypass_proxy_for_localhost, find_bad_proxy
from sentifactory.system.progress import say
from sentifactory.system.stop_signals import (
    ReportedExit,
    StoppedError,
    describe_kept,
    note_kept_places,
    raise_on_signals,
)

_ESCAPING = "sentifactory_json_escapes"
_SHOWN_CHARS = 200
_LINK_LOOP = "Symlink loop from "


def run_and_exit(run: Callable[[], Any], signal_mask: Iterable[int]) -> None:
    """Run an entry point; turn every error into a message on stderr and an exit code (see `errors`).

    Args:
        run: the entry point.
        signal_mask: the signals that this thread holds back from now on; those that came meanwhile are handled.
    """
    escape_unprintable()
    bypass_proxy_for_localhost()
    with note_kept_places():
        code = _run_and_report(run, signal_mask)
    if code == EXIT_READER_GONE:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left to be flushed
    if code == EXIT_INTERRUPTED:
        # A KeyboardInterrupt that has passed through code in a string, such as a data class's, would make Python end
        # itself by SIGINT in place of this exit code; the next code in a string makes it forget that.
        exec("")  # noqa: S102
    if code is not None:
        sys.exit(code)


def _run_and_report(run: Callable[[], Any], signal_mask: Iterable[int]) -> int | str | None:
    """Run an entry point, print the error it ends with, and return the exit code (None: success)."""
    heard: list[int] = []
    try:
        with raise_on_signals() as heard:
            signal.pthread_sigmask(signal.SIG_SETMASK, signal_mask)
            _run_explained(run)
    except StoppedError as stop:
        return _report_stop(stop)
    except SystemExit as stop:
        if stop.code == EXIT_INTERRUPTED and not isinstance(stop, ReportedExit):  # what typer makes of Ctrl-C
            return _report_stop(StoppedError())
        # Typer exits with 1 when stdout is closed; only its stdout wrapper shows that this is the reason.
        return EXIT_READER_GONE if type(sys.stdout).__name__ == "PacifyFlushWrapper" else stop.code
    except SentiFactoryError as error:
        if heard:
            return _report_stop(StoppedError(number=heard[-1]))
        progress_file.end_with(error)
        say(f"Error: {error.describe()}")
        return error.exit_code
    except KeyboardInterrupt:
        return _report_stop(StoppedError())
    except Exception as error:
        if heard:  # what follows from a signal, such as in an event loop that it has interrupted
            return _report_stop(StoppedError(number=heard[-1]))
        if isinstance(error, BrokenPipeError) and _has_lost_reader():
            return EXIT_READER_GONE
        progress_file.end_with(error)
        say(f"Error: {describe_defect(error)}")
        return EXIT_DEFECT
    return None


def _report_stop(stop: StoppedError) -> int:
    """Say what is done and that the same command goes on; return the exit code."""
    what, continues = (stop.what, stop.continues) if stop.what else describe_kept()
    say(f"{what} The same command {'continues' if continues else 'starts again'}: {describe_command()}")
    return 128 + stop.number


def _has_lost_reader() -> bool:
    """Return whether the broken pipe is our stdout, not a pipe between our own processes."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):
        return False


def describe_defect(error: Exception) -> str:
    """Return a message about an unexpected error, and write its traceback to a temporary file."""
    lines = mask_text(str(error)).strip().splitlines()
    cause = f"{type(error).__name__}: {show_controls(lines[0][:_SHOWN_CHARS])}" if lines else type(error).__name__
    what = f"An unexpected error ended the command ({cause})"
    report = [
        f"sentifactory {sentifactory.__version__}, Python {sys.version.split()[0]}, {sys.platform}",
        shlex.join(mask_arguments(sys.argv)),
        mask_text("".join(traceback.format_exception(error))),
    ]
    try:
        descriptor, name = tempfile.mkstemp(prefix="sentifactory-error-", suffix=".log")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as log:
            log.write("\n".join(report))
    except OSError:  # such as a full disk
        return f"{what}. Next: free some space and run the same command."
    return f"{what}. Next: report this bug and attach the file {name}."


def escape_unprintable() -> None:
    """Print characters that the terminal's encoding lacks, and non-UTF-8 bytes of file names, as JSON escapes.

    The terminal's encoding is kept and `--json` output stays valid JSON. Child processes escape with backslashes.
    """
    codecs.register_error(_ESCAPING, _escape)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors=_ESCAPING)
    encoding, _, handler = os.environ.get("PYTHONIOENCODING", "").partition(":")
    if handler in ("", "strict", "surrogateescape"):
        os.environ["PYTHONIOENCODING"] = f"{encoding}:backslashreplace"


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _run_explained(run: Callable[[], Any]) -> None:
    try:
        try:
            run()
        finally:
            sys.stdout.flush()  # here and not at the very end, where nobody catches what it raises
    except SentiFactoryError:
        raise
    except Exception as error:
        if (explained := explain_set_up(error)) is None:
            raise
        raise explained from error


def explain_set_up(error: Exception) -> ConfigError | None:
    """Return the error message for an exception caused by the machine's set-up; None for a bug."""
    if isinstance(error, ModuleNotFoundError):
        return explain_missing_package(error)
    if isinstance(error, UnicodeEncodeError):
        return _explain_name(error)
    if isinstance(error, OSError) and lacks_locks(error):  # a library's: our own locks are optional
        return explain_missing_locks(error)
    if isinstance(error, RuntimeError) and str(error).startswith(_LINK_LOOP):  # what pathlib makes of ELOOP
        return ConfigError(
            "This symbolic link points to itself",
            where=str(error).removeprefix(_LINK_LOOP),
            expected="a file or a folder",
            next_step="point the link to a file or folder",
        )
    if isinstance(error, PermissionError) and error.filename is not None:
        return ConfigError(
            "No permission to read or write this", where=str(error.filename), next_step="check its permissions"
        )
    if isinstance(error, OSError) and (explained := explain_os_error(error, error.filename or "stdout")) is not None:
        return explained
    words = f"{type(error).__name__} {error}".lower()
    return find_bad_proxy() if any(sign in words for sign in ("proxy", "socks", "invalidurl")) else None


def _explain_name(error: UnicodeEncodeError) -> ConfigError | None:
    if not any("\udc80" <= char <= "\udcff" for char in error.object):
        return None
    return ConfigError(
        "A file name contains bytes that are not UTF-8, and a library cannot encode it",
        where=error.object[:_SHOWN_CHARS],
        next_step="rename the file or folder",
    )
