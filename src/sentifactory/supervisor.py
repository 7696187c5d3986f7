"""Runs one server and sees to it that the server and every process below it end with the process that wanted it.

Run as a program, on the standard library alone: `python supervisor.py --parent PID [...] -- COMMAND ...`. It lives
between the process that asks (the comparison) and the server (vLLM, which starts processes of its own that outlive a
killed server: its EngineCore keeps running when its API server is killed with signal 9). Two such supervisors stand
one above the other, so that any single `kill -9` is noticed by a process that survives it:

    comparison ──▶ guard ──▶ supervisor ──▶ server ──▶ the server's own processes

- Each holds a pipe from the process above it and looks whether that process is still its parent: when it goes, for
  whatever reason, everything below is ended.
- Each is a "child subreaper" (Linux): a process whose parent has died becomes its child and is found and ended, also
  when it moved to a session of its own.
- The server gets SIGKILL from the kernel when its supervisor dies; the guard then ends what the server left behind.

Ending means: SIGTERM to the server and time for an orderly end, SIGTERM to whatever is left, SIGKILL until nothing is
left. Shared memory that a killed server had no time to free (some 400 MB of vLLM's) is freed then.
Not covered: the machine's other users, and a kill -9 of comparison, guard and supervisor in the same instant.
Systems without /proc (macOS) get the pipe and the process group only.
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
TERM_WAIT_S = 3.0  # for the processes that the server left behind
KILL_WAIT_S = 20.0
POLL_S = 0.05
PARENT_POLL_S = 1.0
_SHARED_MEMORY = re.compile(r"(?m) (/dev/shm/(?:psm_|sem\.mp-)\S+)$")
SIGNALS_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def call_prctl(option: int, value: int) -> None:
    """Set a process attribute of Linux; elsewhere nothing happens."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def list_descendants(ancestor: int) -> list[int]:
    """Return the ids of all processes below a process, nearest first (empty where there is no /proc).

    Zombies are among them: a process whose first thread has ended looks like one while its other threads run on, and
    while a killed server with many threads is on its way out, its children still stand below such a zombie.
    """
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = entry.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it ended while we looked
        # The name in parentheses may hold spaces and parentheses itself: the fields count from the last one.
        parent = text.rpartition(")")[2].split()[1]
        children.setdefault(int(parent), []).append(int(entry.parent.name))
    found = list(children.get(ancestor, []))
    for pid in found:  # grows while it is read: breadth first
        found.extend(children.get(pid, []))
    return found


def list_shared_memory(pids: list[int]) -> set[Path]:
    """Return the files of shared memory that Python's multiprocessing made for these processes."""
    found: set[Path] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
            found.update(map(Path, _SHARED_MEMORY.findall(text)))
    return found


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a process that may have ended already."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


class Supervisor:
    """One child process, everything below it, and the wish to end them."""

    def __init__(self, command: list[str], *, parent: int, grace_s: float, guarded: bool) -> None:
        self._command = command
        self._parent = parent
        self._grace_s = grace_s
        self._guarded = guarded
        self._exit_code: int | None = None

    def run(self) -> int:
        """Start the child, stay until it ends or is to be ended, end all below, and return the child's exit code."""
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
            # A guarded supervisor watches this pipe; a server must not wait for input.
            stdin=subprocess.PIPE if self._guarded else subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=prepare,  # safe here: this process has one thread
        )

    def _is_end_wanted(self, wake: int) -> bool:
        """Wait until something happens, at most a second; return whether it is a reason to end."""
        pipe = sys.stdin.fileno()
        ready, _, _ = select.select([pipe, wake], [], [], PARENT_POLL_S)
        if wake in ready and any(number in SIGNALS_TO_END for number in os.read(wake, 4096)):
            return True
        # The pipe says nothing until it closes. A copy of it in a third process would keep it open, so look as well
        # whether our parent is still the one we were started by.
        return pipe in ready or os.getppid() != self._parent

    def _has_exited(self) -> bool:
        """Collect ended children, adopted ones too; return whether the one that was started is among them."""
        self._is_childless()
        return self._exit_code is not None

    def _is_childless(self) -> bool:
        """Collect ended children; return whether no process is left below this one.

        The kernel says so, and it cannot be wrong: who is orphaned anywhere below becomes our child in the same
        instant. Reading /proc file by file could miss a process that changes its parent meanwhile.
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
        shared_memory = list_shared_memory(list_descendants(os.getpid()))
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
        for pid in list_descendants(os.getpid()):
            send_signal(pid, number)
        if not Path("/proc").is_dir() and not self._has_exited():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, number)
        return self._wait_until(self._is_childless, wait_s)

    def _wait_until(self, is_done: Callable[[], bool], wait_s: float) -> bool:
        deadline = time.monotonic() + wait_s
        while not is_done():
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        return True


def watch_signals() -> int:
    """Return a descriptor on which the number of each caught signal can be read as a byte.

    The signals stay caught to the end: a second one must not interrupt the ending of the server.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (*SIGNALS_TO_END, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return reader


def main() -> int:
    """Supervise the command given after `--`."""
    parser = argparse.ArgumentParser(description="Run a server that ends with the process that wanted it.")
    parser.add_argument("--parent", type=int, required=True, help="process that the server is for")
    parser.add_argument("--grace_s", type=float, default=5.0, help="seconds for an orderly end")
    parser.add_argument("--scratch", default="", help="temporary folder of the server, removed at the end")
    parser.add_argument("--remains", default="", help="folder removed as well when the parent is no longer there")
    parser.add_argument("--guard", action="store_true", help="start a second supervisor below this one")
    options, command = parser.parse_known_args()
    command = command[1:] if command[:1] == ["--"] else command
    grace_s = options.grace_s
    if options.guard:
        inner = [sys.executable, "-I", "-S", __file__, f"--parent={os.getpid()}", f"--grace_s={grace_s}"]
        command = [*inner, "--", *command]
        grace_s += TERM_WAIT_S + KILL_WAIT_S  # the supervisor below does the work
    try:
        return Supervisor(command, parent=options.parent, grace_s=grace_s, guarded=options.guard).run()
    finally:
        if options.scratch:
            shutil.rmtree(options.scratch, ignore_errors=True)
        if options.remains and os.getppid() != options.parent:
            shutil.rmtree(options.remains, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
