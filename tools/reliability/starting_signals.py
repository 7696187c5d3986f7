"""Sends Ctrl-C and SIGTERM to starting commands, second by second, and checks what each says as it ends.

A command that has begun its work is told in tests when to be stopped; while it imports its libraries it says nothing
that one could wait for. So this goes by the clock, which a test of the suite cannot: run it by hand, in a folder with
the files that the commands name.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from typing import Annotated

import typer

from sentifactory.cli import run_script

SIGNALS = (signal.SIGINT, signal.SIGTERM)
MOMENTS_S = (0.3, 1.0, 2.0, 4.0, 8.0, 12.0)
WITHIN_S = 60.0


def stop_command(words: list[str], number: signal.Signals, after_s: float) -> tuple[int | None, str, bool, float]:
    """Start a command and signal it, as a terminal does: Ctrl-C to the whole group, SIGTERM to the process.

    Returns:
        The exit code (None: it had to be killed), what it said, whether it was running when it was signalled, and the
        seconds that it took to end.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        command = [sys.executable, "-m", "sentifactory.cli", *words]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        time.sleep(after_s)
        is_running = process.poll() is None
        begin = time.monotonic()
        if is_running:
            (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        code: int | None = None
        try:
            code = process.wait(WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.seek(0)
        return code, log.read(), is_running, time.monotonic() - begin


def find_fault(words: list[str], number: signal.Signals, code: int | None, said: str) -> str:
    """Return what is wrong with the end of a signalled command; "" where nothing is."""
    if code is None:
        return f"still there after {WITHIN_S:g} s"
    if "Traceback" in said or "Exception ignored" in said:
        return "a traceback"
    lines = said.rstrip().splitlines() or [""]
    if code == 0 and words[0] in ("serve", "ui"):
        return ""  # it was serving, and a signal is how that ends
    if code != 128 + number:
        return f"exit code {code}"
    return "" if lines[-1].endswith(shlex.join(["sentifactory", *words])) else f"last line: {lines[-1]!r}"


def sweep_moments(
    commands: Annotated[list[str], typer.Argument(help='Commands without "sentifactory", each in quotes.')],
    at: Annotated[list[float] | None, typer.Option("--at", help="Seconds after the start; may be repeated.")] = None,
) -> None:
    """Stop each command at each moment by each signal; exit with 1 if one ends without its sentence."""
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a background job of a script passes on that it is ignored
    n_faults = 0
    for text in commands:
        words = shlex.split(text)
        for number in SIGNALS:
            for moment in at or MOMENTS_S:
                code, said, is_running, took_s = stop_command(words, number, moment)
                fault = find_fault(words, number, code, said) if is_running else ""
                n_faults += bool(fault)
                state = fault or ("ok" if is_running else "over before")
                typer.echo(f"{number.name:<8}{moment:5.1f} s  {words[0]:<10}{took_s:5.1f} s  {state}")
                if fault:
                    typer.echo(said[-3000:])
    raise typer.Exit(1 if n_faults else 0)


if __name__ == "__main__":
    run_script(sweep_moments)
