"""A server in a process of its own: started under two supervisors, watched until it is ready, ended without remains.

What the server is and how it is called is the caller's business (`vllm_process.py`); this module knows processes,
ports and logs. `supervisor.py` says how the end of every process is made sure of.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sentifactory import supervisor
from sentifactory.engines.base import ServerGoneError
from sentifactory.errors import EngineError
from sentifactory.progress import say, show_progress

GRACE_S = 5.0  # for an orderly end; vLLM was seen to need 1 to 2 s
CLOSE_WAIT_S = 60.0
READY_POLL_S = 0.25
SHOWN_LINES = 15
_READ_LOG_BYTES = 1 << 20  # of the end of the log, where the cause stands
HOST = "127.0.0.1"

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
# "(EngineCore pid=12) INFO 11-21 12:07:26 [file.py:68] words": who, how loud, when and where say nothing to a user.
_LOG_HEAD = re.compile(
    r"^(\(\w[\w-]* pid=\d+\) *)?((INFO|WARNING|ERROR|DEBUG):? +)?([\d-]+ [\d:]+ +)?(\[\S+:\d+\] *)?"
)
_CAUSE = re.compile(r"\b[A-Z]\w*(Error|Exception)\b: *\S")
_SIGNAL_BASE = 128


def choose_port(wanted: int | None = None) -> int:
    """Return a free port of this machine, or the wanted one when it is free.

    Raises:
        EngineError: when the wanted port is in use or not allowed.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if wanted is not None:  # a port whose last connections are still closing can be used again
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted or 0))
        except (OSError, OverflowError) as error:
            raise EngineError(
                f"Port {wanted} cannot be used ({getattr(error, 'strerror', None) or error})",
                where=f"{HOST}:{wanted}",
                expected="a free port above 1023",
                next_step="end the process that listens there, choose another port, or give none to get a free one",
            ) from error
        return int(probe.getsockname()[1])


def clean_log_line(line: str) -> str:
    """Return the words of a log line, without process, level, time and file.

    Example:
        >>> clean_log_line("(Worker pid=7) INFO 11-21 12:07:26 [cpu.py:68] Starting to load model")
        'Starting to load model'
    """
    return _LOG_HEAD.sub("", _ANSI.sub("", line).strip()).strip()


def pick_log_lines(text: str, limit: int = SHOWN_LINES) -> list[str]:
    """Return the last lines of a log, led by the first line that names a cause when it stands further up."""
    lines = [line for line in (_ANSI.sub("", raw).rstrip() for raw in text.splitlines()) if clean_log_line(line)]
    tail = lines[-limit:]
    cause = next((line for line in lines[: -len(tail)] if _CAUSE.search(line)), None) if tail else None
    return [cause, "...", *tail] if cause is not None else tail


class ServerProcess:
    """One server process with its log and its temporary folder.

    Args:
        title: what is started, for progress lines and errors, such as "vLLM (base)".
        command: program and arguments.
        environment: the server's whole environment; TMPDIR is set to a folder that goes when the server goes.
        log_path: where the server's output goes; None for a temporary file, removed after an undisturbed end.
        phases: words of the log, and what a user is told when they are the last ones of these in it.

    Raises:
        EngineError: when the process cannot be started.
    """

    def __init__(
        self,
        title: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        log_path: Path | None = None,
        phases: Mapping[str, str] | None = None,
    ) -> None:
        self._title = title
        self._phases = phases or {}
        self._has_failed = False
        self._folder = Path(tempfile.gettempdir())
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="sentifactory-"))
            self._scratch = self._folder / "tmp"
            self._scratch.mkdir()
            self.log_path = (log_path or self._folder / "server.log").resolve()
            self._process = self._start(command, environment)
        except OSError as error:  # no room on the disk, a folder that may not be written, a log path that is a folder
            raise EngineError(
                f"{title} cannot be started ({error.strerror or error})",
                where=str(error.filename or self._folder),
                next_step="give the place room or other permissions, or choose another log file",
            ) from error

    def _start(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        # Isolated and without site-packages: the guard is there in some 20 ms and depends on nothing of ours.
        guard = [sys.executable, "-I", "-S", supervisor.__file__, "--guard", f"--parent={os.getpid()}"]
        guard += [f"--grace_s={GRACE_S}", f"--scratch={self._scratch}", f"--remains={self._folder}"]
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("wb") as log:
            return subprocess.Popen(
                [*guard, "--", *command],
                stdin=subprocess.PIPE,  # its end tells the guard that we are gone
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment, "TMPDIR": str(self._scratch)},
                cwd=self._scratch,  # `python -m` imports from the current folder first: let it be an empty one
                start_new_session=True,  # Ctrl-C in the terminal reaches us alone; we end the server in order
            )

    def wait_until_ready(self, is_ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until the server answers, showing what it says about its start; end it when it does not.

        Raises:
            EngineError: when the server ends by itself, or is not ready in time.
        """
        try:
            deadline = time.monotonic() + timeout_s
            with show_progress(f"Starting {self._title}") as progress:
                while not is_ready():
                    self.check_alive("while it was starting")
                    if time.monotonic() > deadline:
                        raise self._describe_failure(
                            f"{self._title} was not ready after {timeout_s:.0f} s",
                            "start it yourself, and give its address as the engine",
                        )
                    progress.note(self._read_phase())
                    time.sleep(READY_POLL_S)
        except BaseException:
            self.close()
            raise

    def check_alive(self, when: str = "") -> None:
        """Do nothing while the server runs.

        Raises:
            ServerGoneError: when it has ended; the message shows its last lines.
        """
        code = self._process.poll()
        if code is None:
            return
        self._has_failed = True  # keep the log
        self.close()
        ending = f"exit code {code}"
        hint = "mend the cause that its lines name"
        if code == _SIGNAL_BASE + 9 or code == -9:
            ending, hint = "killed", "check the free memory (`free -g`): the system kills what takes too much"
        raise self._describe_failure(f"{self._title} ended {when + ' ' if when else ''}({ending})", hint)

    def _describe_failure(self, what: str, next_step: str) -> ServerGoneError:
        self._has_failed = True
        shown = [f"    {line[:300]}" for line in pick_log_lines(self._read_log())] or ["    (it wrote nothing)"]
        log = f"the whole log is {self.log_path}, its last lines:\n" + "\n".join(shown)
        return ServerGoneError(what, next_step=f"{next_step}; {log}")

    def _read_log(self) -> str:
        with contextlib.suppress(OSError), self.log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _READ_LOG_BYTES))
            return log.read().decode("utf-8", errors="replace")
        return ""

    def _read_phase(self) -> str:
        """Return the name of the last phase that the log speaks of, or "" when it speaks of none."""
        found, furthest = "", -1
        log = self._read_log()
        for words, phase in self._phases.items():
            if (position := log.rfind(words)) > furthest:
                found, furthest = phase, position
        return found

    def close(self) -> None:
        """End the server and everything it started; may be called twice."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(CLOSE_WAIT_S)
        except subprocess.TimeoutExpired:
            say(f"{self._title} (guard process {self._process.pid}) has not ended after {CLOSE_WAIT_S:.0f} s")
            self._has_failed = True
        if not self._has_failed and self._folder in self.log_path.parents:
            shutil.rmtree(self._folder, ignore_errors=True)
