"""Runs a server as a child process under two supervisors, waits until it is ready, and ends it with all its children.

This module handles processes, ports and logs; `start_vllm.py` builds vLLM's command. `system/supervisor.py` explains
how every process is ended.
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

from sentifactory.engines.base import ServerEndedError
from sentifactory.errors import EngineError
from sentifactory.system import supervisor
from sentifactory.system.atomic import has_marker
from sentifactory.system.file_lock import refuse_links
from sentifactory.system.progress import say, show_progress

GRACE_S = 5.0  # for a graceful shutdown; vLLM needs 1 to 2 s
CLOSE_WAIT_S = 60.0
READY_POLL_S = 0.25
SHOWN_LINES = 15
_READ_LOG_BYTES = 1 << 20  # read from the end of the log, where the cause is
HOST = "127.0.0.1"
LOG_MARK = "# A server's output, kept by SentiFactory"  # first line of every log

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
# "(EngineCore pid=12) INFO 11-21 12:07:26 [file.py:68] message": process, level, time and file are dropped.
_LOG_HEAD = re.compile(
    r"^(\(\w[\w-]* pid=\d+\) *)?((INFO|WARNING|ERROR|DEBUG):? +)?([\d-]+ [\d:]+ +)?(\[\S+:\d+\] *)?"
)
_CAUSE = re.compile(r"\b[A-Z]\w*(Error|Exception)\b: *\S")
_SIGNAL_BASE = 128


def choose_port(wanted: int | None = None) -> int:
    """Return the wanted port if it is free, or any free port.

    Raises:
        EngineError: when the wanted port is in use or not allowed.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if wanted is not None:  # also accept a port whose last connections are in TIME_WAIT
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted or 0))
        except (OSError, OverflowError) as error:
            raise EngineError(
                f"Port {wanted} cannot be used ({getattr(error, 'strerror', None) or error})",
                where=f"{HOST}:{wanted}",
                expected="a free port above 1023",
                next_step="end the process that listens there, or choose another port, or none to get a free one",
                code="server-start",
            ) from error
        return int(probe.getsockname()[1])


def clean_log_line(line: str) -> str:
    """Return the message of a log line, without process, level, time and file.

    Example:
        >>> clean_log_line("(Worker pid=7) INFO 11-21 12:07:26 [cpu.py:68] Starting to load model")
        'Starting to load model'
    """
    return _LOG_HEAD.sub("", _ANSI.sub("", line).strip()).strip()


def pick_log_lines(text: str, limit: int = SHOWN_LINES) -> list[str]:
    """Return the last lines of a log, preceded by the first line with an exception if it is further up."""
    lines = [line for line in (_ANSI.sub("", raw).rstrip() for raw in text.splitlines()) if clean_log_line(line)]
    tail = lines[-limit:]
    cause = next((line for line in lines[: -len(tail)] if _CAUSE.search(line)), None) if tail else None
    return [cause, "...", *tail] if cause is not None else tail


def refuse_unrelated_log(path: Path) -> None:
    """Refuse to overwrite a file that is not an earlier log of ours.

    Raises:
        EngineError: when the path holds something else.
    """
    is_free = not path.exists() or path.is_char_device() or (path.is_file() and not path.stat().st_size)
    if not is_free and not has_marker(path, LOG_MARK):
        raise EngineError(
            "This is not a server log, and would be replaced",
            where=str(path),
            next_step="move it away, or choose another log file",
            code="server-start",
        )


class ServerProcess:
    """One server process with its log and its temporary folder.

    Args:
        title: of the server in progress lines and errors, such as "vLLM (base)".
        command: program and arguments.
        environment: the server's complete environment; TMPDIR is set to a folder that is removed with the server.
        log_path: file for the server's output; None for a temporary file, removed after a clean end.
        phases: phrases in the log, and the progress to show for the latest one.
        modules: files that the server can import, by module name.

    Raises:
        EngineError: when the process cannot be started, or the log's path holds another file.
    """

    def __init__(
        self,
        title: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        log_path: Path | None = None,
        phases: Mapping[str, str] | None = None,
        modules: Mapping[str, Path] | None = None,
    ) -> None:
        self._title = title
        self._phases = phases or {}
        self._has_failed = False
        if log_path is not None:
            refuse_unrelated_log(log_path)
        self._folder = Path(tempfile.gettempdir())
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="sentifactory-"))
            self._scratch = self._folder / "tmp"
            self._scratch.mkdir()
            self.log_path = (log_path or self._folder / "server.log").resolve()
            for name, file in (modules or {}).items():
                shutil.copyfile(file, self._scratch / f"{name}.py")
            paths = {"PYTHONPATH": str(self._scratch)} if modules else {}
            self._process = self._start(command, {**environment, **paths})
        except OSError as error:  # full disk, missing permission, log path that is a folder
            raise EngineError(
                f"{title} cannot be started ({error.strerror or error})",
                where=str(error.filename or self._folder),
                next_step="check disk space and permissions there, or choose another log file",
                code="server-start",
            ) from error

    def _start(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        # Isolated, without site-packages: the guard starts in about 20 ms and needs no packages.
        guard = [sys.executable, "-I", "-S", supervisor.__file__, "--guard", f"--parent={os.getpid()}"]
        guard += [f"--grace_s={GRACE_S}", f"--scratch={self._scratch}", f"--remains={self._folder}"]
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log_path, "wb", opener=refuse_links) as log:
            log.write(f"{LOG_MARK}: {self._title}\n".encode())
            log.flush()
            return subprocess.Popen(
                [*guard, "--", *command],
                stdin=subprocess.PIPE,  # the guard sees its end when this process ends
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment, "TMPDIR": str(self._scratch)},
                cwd=self._scratch,  # an empty folder, because `python -m` imports from the current one first
                start_new_session=True,  # Ctrl-C reaches only this process, which then shuts the server down
            )

    def wait_until_ready(self, is_ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until the server answers, showing its progress; end it if it does not.

        Raises:
            EngineError: when the server exits, or is not ready in time.
        """
        try:
            deadline = time.monotonic() + timeout_s
            with show_progress(f"Starting {self._title}") as progress:
                while not is_ready():
                    self.check_alive("while it was starting")
                    if time.monotonic() > deadline:
                        raise self._describe_failure(
                            f"{self._title} was not ready after {timeout_s:.0f} s",
                            "start it yourself, and pass its address as the engine",
                        )
                    progress.note(self._read_phase())
                    time.sleep(READY_POLL_S)
        except BaseException:
            self.close()
            raise

    def check_alive(self, when: str = "") -> None:
        """Check that the server is running.

        Raises:
            ServerEndedError: when it has ended; the message shows the last lines of its log.
        """
        code = self._process.poll()
        if code is None:
            return
        self._has_failed = True  # keep the log
        self.close()
        ending = f"exit code {code}"
        hint = "fix the cause named in its log"
        if code == _SIGNAL_BASE + 9 or code == -9:
            ending, hint = "killed", "check the free memory (`free -g`): the system kills processes that use too much"
        raise self._describe_failure(f"{self._title} ended {when + ' ' if when else ''}({ending})", hint)

    def _describe_failure(self, what: str, next_step: str) -> ServerEndedError:
        self._has_failed = True
        shown = [f"    {line[:300]}" for line in pick_log_lines(self._read_log())] or ["    (empty)"]
        log = f"the complete log is {self.log_path}, its last lines:\n" + "\n".join(shown)
        return ServerEndedError(what, next_step=f"{next_step}; {log}")

    def _read_log(self) -> str:
        with contextlib.suppress(OSError), self.log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _READ_LOG_BYTES))
            lines = log.read().decode("utf-8", errors="replace").splitlines(keepends=True)
            return "".join(line for line in lines if not line.startswith(LOG_MARK))
        return ""

    def _read_phase(self) -> str:
        """Return the latest phase in the log; "" if there is none."""
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
            say(f"{self._title} (guard process {self._process.pid}) is still running after {CLOSE_WAIT_S:.0f} s")
            self._has_failed = True
        if not self._has_failed and self._folder in self.log_path.parents:
            shutil.rmtree(self._folder, ignore_errors=True)
