"""The page in a process of its own, started as its users start it."""

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


def name_log(folder: Path) -> Path:
    """Return where `serve_page` writes what the page says; in the folder itself there is what the page writes."""
    return folder.with_name(f"{folder.name}.log")


@contextmanager
def serve_page(folder: Path, *options: str, password: str | None = PASSWORD) -> Iterator[str]:
    """Give the address of a page whose workspace is `space` in a folder; its log is beside the folder (`name_log`)."""
    command = [sys.executable, "-m", "sentifactory.cli", "ui", "--port", "0", "--workspace", "space", *options]
    with name_log(folder).open("w") as log:
        server = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=folder,
            env=os.environ | ({} if password is None else {PASSWORD_VARIABLE: password}),
        )
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            assert found, "the page did not start"
            yield found[0]
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=60)
