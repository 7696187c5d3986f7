"""Commands in processes forked from one that has the libraries loaded; a new interpreter imports them for seconds.

The process that is forked has computed nothing and has no threads. A forked command has a folder, an environment and
streams of its own; it exits with the code of the command, or below 0 where a signal ended it.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingUnixStreamServer
from threading import Thread

_CONTEXT = get_context("forkserver")
# They bring torch, transformers and datasets.
_CONTEXT.set_forkserver_preload(
    [
        "sentifactory.cli",
        "llamafactory.train.tuner",
        "llamafactory.launcher",
        "sentifactory.training.llamafactory.train_recipe",
        "sentifactory.engines.local.transformers_engine",
        "sentifactory.evaluation.compare",
        "sentifactory.serving.http.server",
    ]
)


def start_forked(
    words: list[str], folder: Path, environment: Mapping[str, str], stdout: Path, stderr: Path
) -> ForkServerProcess:
    """Start a command: `sentifactory`, `llamafactory-cli`, or the path of a script, and its arguments."""
    process = _CONTEXT.Process(target=_execute, args=(words, folder, dict(environment), stdout, stderr))
    process.start()
    return process


def run_forked(
    *words: str | Path, folder: Path, environment: Mapping[str, str] | None = None, timeout_s: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `subprocess.run` with text captured does."""
    command = [str(word) for word in words]
    with tempfile.TemporaryDirectory(prefix="forked-") as name:
        streams = [Path(name) / "stdout", Path(name) / "stderr"]
        process = start_forked(command, folder, environment or os.environ, *streams)
        try:
            process.join(timeout_s)
            assert process.exitcode is not None, f"no end within {timeout_s} s: {command}"
        finally:
            process.kill()
            process.join()
        said = [stream.read_text(encoding="utf-8") if stream.exists() else "" for stream in streams]
    return subprocess.CompletedProcess(command, process.exitcode, *said)


@contextmanager
def serve_forked(*words: str | Path, folder: Path) -> Iterator[tuple[ForkServerProcess, TextIOWrapper]]:
    """Start a command that goes on, and give its process and its standard output; it is killed at the end."""
    with tempfile.TemporaryDirectory(prefix="forked-") as name:
        pipe = Path(name) / "stdout"
        os.mkfifo(pipe)
        process = start_forked([str(word) for word in words], folder, os.environ, pipe, Path(name) / "stderr")
        try:
            with pipe.open(encoding="utf-8") as stdout:
                yield process, stdout
        finally:
            process.kill()
            process.join()


def _execute(words: list[str], folder: Path, environment: dict[str, str], stdout: Path, stderr: Path) -> None:
    """Become the command: in its folder, with its environment and streams."""
    for number, path in ((1, stdout), (2, stderr)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, encoding="utf-8", closefd=False) for number in (1, 2))
    sys.argv = words
    if words[0] == "sentifactory":
        from sentifactory.cli import main

        main()
    elif words[0] == "llamafactory-cli":
        from llamafactory.cli import main as main_of_llamafactory

        main_of_llamafactory()
    else:
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")


CLIENT = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    server.sendall(json.dumps([os.getpid(), sys.argv[1:], os.getcwd(), dict(os.environ)]).encode() + b"\\n")
    sys.exit(int(server.makefile().readline()))
"""


@contextmanager
def serve_python() -> Iterator[Path]:
    """Give a program that takes the place of `python -m sentifactory.cli` or `python script.py`: it runs them forked.

    Who starts it must wait for its end: a signal does not reach the forked command.
    """
    with tempfile.TemporaryDirectory(prefix="forked-") as name:
        address, client = Path(name) / "socket", Path(name) / "python"
        client.write_text(CLIENT.format(python=sys.executable, address=str(address)), encoding="utf-8")
        client.chmod(0o755)
        with ThreadingUnixStreamServer(str(address), _Fork) as server:
            Thread(target=server.serve_forever, daemon=True).start()
            yield client
            server.shutdown()


class _Fork(StreamRequestHandler):
    def handle(self) -> None:
        pid, words, folder, environment = json.loads(self.rfile.readline())
        words = [word for word in words if word != "-u"]
        if words[:2] == ["-m", "sentifactory.cli"]:
            words[:2] = ["sentifactory"]
        streams = [Path(f"/proc/{pid}/fd/{number}") for number in (1, 2)]
        process = start_forked(words, Path(folder), environment, *streams)
        process.join()
        self.wfile.write(b"%d\n" % (process.exitcode or 0))
