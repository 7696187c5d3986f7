"""Runs a server, and ends it with all its descendants when the process that needs it ends.

Run as a program, with the standard library only: `python supervisor.py --parent PID [...] -- COMMAND ...`. It runs
between the client (the comparison) and the server (vLLM, whose EngineCore keeps running when its API server is killed
with signal 9). Two nested supervisors ensure that any single `kill -9` is noticed by a surviving process:

    comparison ──▶ guard ──▶ supervisor ──▶ server ──▶ the server's own processes

- Each holds a pipe from its parent and checks whether that process is still its parent: when the parent ends, for
  any reason, all descendants are ended.
- Each is a "child subreaper" (Linux): it adopts orphaned descendants, even those in another session, and ends them.
- The kernel sends SIGKILL to the server when its supervisor dies; the guard then ends the server's descendants.

The server gets SIGTERM and time for a graceful shutdown; remaining processes get SIGTERM, then SIGKILL until none is
left. Shared memory of a killed server (about 400 MB for vLLM) is freed. Not covered: a kill -9 of comparison, guard
and supervisor at the same instant, and one that comes before the guard runs, which leaves a temporary folder without
processes. Systems without /proc (macOS) have neither subreapers nor a signal at the parent's death: there `ps` lists
the descendants before the server ends, because its orphans are no longer ours.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
TERM_WAIT_S = 3.0  # for the remaining processes of the server
KILL_WAIT_S = 20.0
POLL_S = 0.05
PARENT_POLL_S = 1.0
_SHARED_MEMORY = re.compile(r"(?m) (/dev/shm/(?:psm_|sem\.mp-)\S+)$")
SIGNALS_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def call_prctl(option: int, value: int) -> None:
    """Set a process attribute on Linux; does nothing on other systems."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def list_descendants(ancestor: int) -> list[int]:
    """Return the ids of all descendants of a process, breadth first.

    Zombies are included: a process whose main thread has ended looks like one while its other threads still run, and
    the children of a killed server with many threads stay below such a zombie until it is gone.
    """
    children = _read_children()
    found = list(children.get(ancestor, []))
    for pid in found:  # grows during the loop: breadth first
        found.extend(children.get(pid, []))
    return found


def list_children(parent: int) -> list[int]:
    """Return the ids of the processes that a process started."""
    return _read_children().get(parent, [])


def _read_children() -> dict[int, list[int]]:
    """Return the ids of the children of every process that has any."""
    children: dict[int, list[int]] = {}
    if not has_proc():
        # The listing contains `ps` itself, a child of ours, which has ended when it is read.
        for line in read_ps("-A", "-o", "pid=,ppid=").splitlines():
            process, started_by = map(int, line.split())
            children.setdefault(started_by, []).append(process)
        return children
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = entry.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        # The name may contain spaces and parentheses: fields are counted from the last closing one.
        parent = text.rpartition(")")[2].split()[1]
        children.setdefault(int(parent), []).append(int(entry.parent.name))
    return children


def has_proc() -> bool:
    """Return whether the system describes its processes as files (Linux)."""
    return Path("/proc/self/stat").exists()


def read_ps(*arguments: str) -> str:
    """Return what the command `ps` of POSIX lists; "" where it cannot."""
    try:
        listing = subprocess.run(["ps", *arguments], capture_output=True, errors="replace", check=False)
    except OSError:
        return ""
    return listing.stdout


def has_argument(pid: int, argument: str) -> bool:
    """Return whether a process is running that was started with an argument."""
    if not has_proc():
        return argument in read_ps("-ww", "-o", "args=", "-p", str(pid))
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(argument) in words


def list_shared_memory(pids: list[int]) -> set[Path]:
    """Return the shared-memory files that Python's multiprocessing created for these processes."""
    found: set[Path] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
            found.update(map(Path, _SHARED_MEMORY.findall(text)))
    return found


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


class Supervisor:
    """Runs a child process, and ends it with all its descendants."""

    def __init__(self, command: list[str], *, parent: int, grace_s: float, guarded: bool) -> None:
        self._command = command
        self._parent = parent
        self._grace_s = grace_s
        self._guarded = guarded
        self._exit_code: int | None = None
        self._orphans: list[int] = []  # processes that may not be below this one any more

    def run(self) -> int:
        """Run the child until it ends or the parent is gone, end all descendants, and return the child's exit code."""
        call_prctl(PR_SET_CHILD_SUBREAPER, 1)
        wake = watch_signals()
        self._child = self._start_child()
        while not self._has_exited() and not self._is_end_wanted(wake):
            pass
        self._end_all()
        return self._exit_code if self._exit_code is not None else 0

    def _start_child(self) -> subprocess.Popen[bytes]:
        me = os.getpid()

        def prepare() -> None:
            call_prctl(PR_SET_PDEATHSIG, signal.SIGKILL if not self._guarded else 0)
            if os.getppid() != me:
                os._exit(1)  # the supervisor died between fork and prctl
            signal.pthread_sigmask(signal.SIG_SETMASK, [])

        return subprocess.Popen(
            self._command,
            # The inner supervisor watches this pipe; a server must not wait for input.
            stdin=subprocess.PIPE if self._guarded else subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=prepare,  # safe here: this process has one thread
        )

    def _is_end_wanted(self, wake: int) -> bool:
        """Wait for an event, at most a second; return whether it is a reason to end."""
        pipe = sys.stdin.fileno()
        ready, _, _ = select.select([pipe, wake], [], [], PARENT_POLL_S)
        if wake in ready and any(number in SIGNALS_TO_END for number in os.read(wake, 4096)):
            return True
        # The pipe becomes readable when it closes. A copy in a third process would keep it open, so the parent's id
        # is checked as well.
        return pipe in ready or os.getppid() != self._parent

    def _has_exited(self) -> bool:
        """Reap ended children, including adopted ones; return whether the started one has ended."""
        self._is_childless()
        return self._exit_code is not None

    def _is_childless(self) -> bool:
        """Reap ended children; return whether no descendant is left.

        waitpid is reliable, because orphaned descendants become our children at once. Reading /proc file by file could
        miss a process that changes its parent meanwhile.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self._child.pid:
                code = os.waitstatus_to_exitcode(status)
                self._exit_code = code if code >= 0 else 128 - code

    def _end_all(self) -> None:
        below = list_descendants(os.getpid())
        shared_memory = list_shared_memory(below)
        self._orphans = [] if has_proc() else below
        if not self._has_exited():
            if self._child.stdin is not None:
                self._child.stdin.close()
            send_signal(self._child.pid, signal.SIGTERM)
            self._wait_until(self._has_exited, self._grace_s)
        deadline = time.monotonic() + KILL_WAIT_S
        is_over = self._signal_and_wait(signal.SIGTERM, TERM_WAIT_S)
        while not is_over and time.monotonic() < deadline:
            is_over = self._signal_and_wait(signal.SIGKILL, 2 * POLL_S)
        for file in shared_memory:
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)

    def _signal_and_wait(self, number: int, wait_s: float) -> bool:
        """Send a signal to all descendants; return whether none is left in time."""
        for pid in {*list_descendants(os.getpid()), *self._orphans}:
            send_signal(pid, number)
        return self._wait_until(self._is_alone, wait_s)

    def _is_alone(self) -> bool:
        """Return whether no child and no orphan is left."""
        self._orphans = [pid for pid in self._orphans if _read_state(pid) not in ("", "Z")]
        return self._is_childless() and not self._orphans

    def _wait_until(self, is_done: Callable[[], bool], wait_s: float) -> bool:
        deadline = time.monotonic() + wait_s
        while not is_done():
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        return True


def _read_state(pid: int) -> str:
    """Return the letter of a process's state, `Z` for a zombie; "" when it is gone."""
    return read_ps("-o", "stat=", "-p", str(pid)).strip()[:1]


def watch_signals() -> int:
    """Return a descriptor from which the number of each caught signal can be read as a byte.

    Signals stay caught until the end: a second one must not interrupt the shutdown of the server.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (*SIGNALS_TO_END, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return reader


def main() -> int:
    """Supervise the command given after `--`."""
    parser = argparse.ArgumentParser(description="Run a server that ends with its parent process.")
    parser.add_argument("--parent", type=int, required=True, help="process that needs the server")
    parser.add_argument("--grace_s", type=float, default=5.0, help="seconds for a graceful shutdown")
    parser.add_argument("--scratch", default="", help="temporary folder of the server, removed at the end")
    parser.add_argument("--remains", default="", help="folder that is also removed if the parent has ended")
    parser.add_argument("--guard", action="store_true", help="start a second supervisor below this one")
    options, command = parser.parse_known_args()
    command = command[1:] if command[:1] == ["--"] else command
    grace_s = options.grace_s
    if options.guard:
        inner = [sys.executable, "-I", "-S", __file__, f"--parent={os.getpid()}", f"--grace_s={grace_s}"]
        command = [*inner, "--", *command]
        grace_s += TERM_WAIT_S + KILL_WAIT_S  # the inner supervisor ends the server
    try:
        return Supervisor(command, parent=options.parent, grace_s=grace_s, guarded=options.guard).run()
    finally:
        if options.scratch:
            shutil.rmtree(options.scratch, ignore_errors=True)
        if options.remains and os.getppid() != options.parent:
            shutil.rmtree(options.remains, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
