"""Progress: plain lines with what is left where there is no terminal, nothing on stdout, a bar on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from sentifactory.system import progress

CODE = (
    "from sentifactory.system.progress import show_progress\n"
    "with show_progress('Asking base', total=4, unit='reviews') as shown:\n"
    "    for _ in range(4): shown.advance()\n"
    "    shown.note('done')\n"
)


def test_plain_lines_say_how_far_and_how_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(float(second) for second in range(0, 1000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.show_progress("Asking base", total=8, unit="reviews") as shown:
        for _ in range(8):
            shown.advance()
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert lines[0].startswith("Asking base: 0/8 reviews")
    assert lines[-1].startswith("Asking base: 8/8 reviews")
    assert any(" s left" in line for line in lines[1:-1])
    assert len(lines) < 10


def test_an_error_still_ends_the_display(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), progress.show_progress("Saving", total=2):
        raise RuntimeError
    assert capsys.readouterr().err.splitlines()[-1].startswith("Saving: 0/2")


def test_a_terminal_gets_a_bar() -> None:
    ours, theirs = pty.openpty()
    known = {**os.environ, "TERM": "xterm"}  # a dumb one, such as Emacs has, gets no colours
    with subprocess.Popen([sys.executable, "-c", CODE], stderr=theirs, stdout=subprocess.PIPE, env=known) as child:
        assert child.stdout is not None
        assert child.stdout.read() == b""
    shown = b""
    os.close(theirs)
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
    assert b"4/4 reviews" in shown
    assert b"\x1b[" in shown
