"""The page in a process of its own, started as its users start it, with a password."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sentifactory.ui.settings import PASSWORD_VARIABLE, USER_NAME

PASSWORD = "correct-horse-battery"
RIGHT = {"username": USER_NAME, "password": PASSWORD}


@contextmanager
def serve_page(folder: Path, *options: str) -> Iterator[str]:
    """Give the address of a page whose workspace is `space` in a folder; its log is `page.log` there."""
    command = [sys.executable, "-m", "sentifactory.cli", "ui", "--port", "0", "--workspace", "space", *options]
    with (folder / "page.log").open("w") as log:
        server = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=folder,
            env={**os.environ, PASSWORD_VARIABLE: PASSWORD},
        )
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            assert found, "the page did not start"
            yield found[0]
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=60)
