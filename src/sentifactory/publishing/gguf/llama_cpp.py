"""Finds a llama.cpp, starts its server with a GGUF file, and asks it for tokens and answers.

The package `xllamacpp` carries llama.cpp's server. A llama.cpp of the user's own is taken where its folder is named;
it also has `llama-quantize`, which makes Q4_K_M and is in no package.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.engines.openai.connection import RetryPolicy
from sentifactory.engines.openai.openai_engine import OpenAiEngine
from sentifactory.engines.openai.request_errors import read_message
from sentifactory.engines.vllm.server_process import HOST, ServerProcess, choose_port
from sentifactory.errors import ConfigError, EngineError
from sentifactory.publishing.gguf import serve_file
from sentifactory.records import Prediction, Review
from sentifactory.system.extras import describe_missing_package
from sentifactory.system.progress import show_progress
from sentifactory.task.task import Task

if TYPE_CHECKING:
    import httpx

PACKAGE = "xllamacpp"
# The first with `--swa-full`: without it, its server reads every prompt of Gemma 3 from the start.
MINIMUM_BUILD = 5440
# "version: 0.5.0 (build 11434, commit abc)", and before it had such versions "version: 11434 (abc)".
_BUILD = re.compile(r"version: (?:[\d.]+ \(build )?(\d+)[ ,]")
_READY_S = 300.0
_HEALTH_S = 10.0
# The process is watched besides: a prompt of a large model takes minutes on a CPU.
_ASK_S = 1800.0


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """A llama.cpp on this machine.

    Attributes:
        name: where it comes from, such as "xllamacpp 2026.10.11549".
        build: llama.cpp's own number of the version; 0 for one that was compiled without git, None if there is none.
        server: the beginning of the command that starts its server.
        quantiser: the program `llama-quantize`; None where there is none.
    """

    name: str
    build: int | None
    server: tuple[str, ...]
    quantiser: str | None

    def build_command(self, file: Path, port: int, n_ctx: int) -> list[str]:
        """Return the command that serves a file to this machine; `n_ctx` tokens are the longest text."""
        if self.server[0] == sys.executable:
            return [*self.server, str(file), str(port), str(n_ctx)]
        options = {"--model": file, "--host": HOST, "--port": port, "--ctx-size": n_ctx, "--parallel": 1}
        return [*self.server, *(str(word) for pair in options.items() for word in pair), "--swa-full"]


def find_llama_cpp(folder: Path | None) -> LlamaCpp:
    """Return the llama.cpp in a folder or, without one, that of the package or of the PATH.

    Raises:
        ConfigError: when there is none, or it is too old.
    """
    path = None if folder is None else str(folder.expanduser().resolve())
    quantiser = shutil.which("llama-quantize", path=path)
    if folder is None and find_spec(PACKAGE) is not None:
        version = metadata.version(PACKAGE)
        last = version.split(".")[2:3]
        build = int(last[0]) if last and last[0].isdigit() else None  # the package is numbered year.month.build
        found = LlamaCpp(f"{PACKAGE} {version}", build, (sys.executable, serve_file.__file__), quantiser)
    else:
        found = _find_program(folder, path, quantiser)
    if found.build is None:
        raise ConfigError(
            f"This llama.cpp does not run, or does not state its version: {found.name}",
            where="" if folder is None else str(folder),
            expected=f"a llama-server that prints its version, build {MINIMUM_BUILD} or newer",
            next_step="start `llama-server --version` by hand and mend what it reports, or install llama.cpp anew",
            code="llama-cpp-failed",
        )
    if 0 < found.build < MINIMUM_BUILD:
        raise ConfigError(
            f"This llama.cpp is too old: {found.name}",
            where="" if folder is None else str(folder),
            expected=f"build {MINIMUM_BUILD} or newer",
            next_step=f"pip install --upgrade {PACKAGE}, or update llama.cpp",
            code="llama-cpp-old",
        )
    return found


def _find_program(folder: Path | None, path: str | None, quantiser: str | None) -> LlamaCpp:
    program = shutil.which("llama-server", path=path)
    if program is None:
        if folder is None:
            raise describe_missing_package(PACKAGE)
        raise ConfigError(
            "There is no llama-server in this folder",
            where=str(folder),
            expected="the folder with llama-server and llama-quantize of a llama.cpp",
            next_step=f"omit --llama_cpp to take the package {PACKAGE}",
            code="llama-cpp-missing",
        )
    try:
        asked = subprocess.run([program, "--version"], capture_output=True, text=True, errors="replace", timeout=60)
        words = asked.stdout + asked.stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        words = str(error)
    found = _BUILD.search(words)
    build = int(found[1]) if found else None
    return LlamaCpp(f"{program}, {f'build {build}' if found else _find_line(words)}", build, (program,), quantiser)


def _find_line(words: str) -> str:
    """Return the first line of what a program has printed, at most 200 characters."""
    return next((line.strip() for line in words.splitlines() if line.strip()), "it prints nothing")[:200]


def quantise_file(quantiser: str, source: Path, target: Path, kind: str) -> None:
    """Write a GGUF file with another precision by llama.cpp's own program.

    Raises:
        EngineError: with its last lines, when it fails.
    """
    with show_progress(f"Quantising to {kind}"):
        done = subprocess.run(
            [quantiser, str(source), str(target), kind.upper()], capture_output=True, text=True, errors="replace"
        )
    if done.returncode:
        raise EngineError(
            f"llama-quantize ended with exit code {done.returncode}",
            where=quantiser,
            next_step="see its last lines:\n" + "\n".join((done.stdout + done.stderr).splitlines()[-5:]),
            code="llama-cpp-failed",
        )


class LlamaServer:
    """A running server of llama.cpp.

    Args:
        client: connected to it.
        process: of the server.

    Attributes:
        address: of the server.
    """

    def __init__(self, client: httpx.Client, process: ServerProcess) -> None:
        self.address = str(client.base_url).rstrip("/")
        self._client = client
        self._process = process

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """Return the prompt for chat messages, by the chat template in the file.

        Raises:
            EngineError: when the server does not answer.
        """
        return str(self._post("/apply-template", {"messages": list(messages)})["prompt"])

    def tokenize(self, prompt: str) -> list[int]:
        """Return the token ids of a prompt, the first token of every prompt included; raises what `render` does."""
        body = {"content": prompt, "add_special": True, "parse_special": True}
        return [int(token) for token in self._post("/tokenize", body)["tokens"]]

    def predict(self, reviews: Sequence[Review], task: Task) -> list[Prediction]:
        """Return the model's answers by `score`, as those who ask this server get them.

        Raises:
            EngineError: when the server does not answer.
        """
        watched = RetryPolicy(timeout_s=None, silence_s=_ASK_S, check_server=self._process.check_alive)
        with OpenAiEngine(
            self.address, None, task, name="llama.cpp", mode="score", concurrency=1, retry_policy=watched
        ) as engine:
            return engine.predict(reviews)

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        import httpx

        try:
            response = self._client.post(path, json=body)
            if response.is_error:
                raise EngineError(
                    f"llama.cpp's server refuses a request (HTTP {response.status_code}): {read_message(response)}",
                    where=path,
                    code="server-answer",
                )
            return response.json()
        except (httpx.HTTPError, ValueError) as error:
            self._process.check_alive("while it was asked")
            raise EngineError(
                f"llama.cpp's server does not answer ({error})", where=path, code="server-answer"
            ) from error


@contextmanager
def start_llama_server(llama_cpp: LlamaCpp, file: Path, n_ctx: int) -> Iterator[LlamaServer]:
    """Serve a GGUF file for the duration of the block.

    Raises:
        EngineError: when the server does not start, as with a broken file.
    """
    import httpx

    port = choose_port()
    process = ServerProcess("llama.cpp", llama_cpp.build_command(file, port, n_ctx), dict(os.environ))
    try:
        with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=_ASK_S, trust_env=False) as client:

            def is_ready() -> bool:
                try:
                    return client.get("/health", timeout=_HEALTH_S).status_code == httpx.codes.OK
                except httpx.TransportError:
                    return False

            process.wait_until_ready(is_ready, _READY_S)
            yield LlamaServer(client, process)
    finally:
        process.close()
