"""Starts the web page as its users start it, in a process of its own: for pictures of it and for tests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from sentifactory.errors import ConfigError
from sentifactory.ui.page_settings import PASSWORD_VARIABLE

_END_TIMEOUT_S = 60


@contextmanager
def serve_page(
    workspace: str | Path,
    *options: str,
    folder: Path | None = None,
    log: Path | None = None,
    password: str | None = None,
) -> Iterator[str]:
    """Give the address of a page on a free port.

    Args:
        workspace: of the page.
        options: of `sentifactory ui`, besides.
        folder: in which it is started; None: the current one.
        log: gets what the page says on stderr; None: this process's stderr.
        password: of the page; None: it has none, whatever the environment says.

    Raises:
        ConfigError: when the page does not start.
    """
    command = [sys.executable, "-m", "sentifactory.cli", "ui", "--port", "0", "--workspace", str(workspace), *options]
    environment = {name: value for name, value in os.environ.items() if name != PASSWORD_VARIABLE}
    if password is not None:
        environment[PASSWORD_VARIABLE] = password
    with nullcontext() if log is None else log.open("w") as errors:
        server = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=folder,
            env=environment,
        )
        try:
            line = server.stdout.readline() if server.stdout else ""
            if (found := re.search(r"http://\S+", line)) is None:
                raise ConfigError("The web page did not start", where=" ".join(command))
            yield found[0]
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=_END_TIMEOUT_S)
