"""Starts the measured services: ours with each of the given models, and the plain ones for comparison."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sentifactory.errors import EngineError
from sentifactory.system.supervisor import list_descendants

END_WAIT_S = 90.0
LONGEST_CHARS = 300  # of a text to send
_PORT = re.compile(r"^(?:.*:)?(\d+)(?:/predict.*)?$")


@dataclass(frozen=True, slots=True)
class BenchModels:
    """The models to measure; services whose model is None are left out.

    Attributes:
        llm: folder of a language model, for vLLM and for the plain service.
        encoder: folder of an encoder, for the engine `encoder` and for the plain service.
        onnx: folder of the same encoder in ONNX.
        reviews: labelled reviews; tfidf is trained on them, and their texts are sent.
    """

    llm: str | None
    encoder: str | None
    onnx: str | None
    reviews: str

    def list_services(self) -> dict[str, list[str]]:
        """Return the command of each service by name."""
        ours = [sys.executable, "-m", "sentifactory.cli", "serve"]
        plain = [sys.executable, "-m", "tools.service_bench.plain_service"]
        found = {"tfidf": [*ours, self.reviews, "--engine", "tfidf", "--port", "0"]}
        if self.encoder:
            found["plain encoder"] = [*plain, "encoder", self.encoder]
            found["encoder"] = [*ours, self.encoder, "--engine", "encoder", "--port", "0"]
        if self.onnx:
            found["onnx"] = [*ours, self.onnx, "--engine", "onnx", "--port", "0"]
        if self.llm:
            found["plain generate"] = [*plain, "llm", self.llm]
            found["vllm"] = [*ours, self.llm, "--engine", "vllm", "--port", "0"]
        return found


@dataclass(frozen=True, slots=True)
class RunningService:
    """A running service: its process and its address."""

    process: subprocess.Popen[str]
    address: str

    def list_processes(self) -> list[int]:
        """Return the ids of all its child processes, direct and indirect."""
        return list_descendants(self.process.pid)


@contextmanager
def run_service_process(command: list[str]) -> Iterator[RunningService]:
    """Start a service, wait until it is ready, and stop it with SIGTERM at the end.

    Raises:
        EngineError: if it exits before it is ready.
    """
    process = subprocess.Popen(command, stdout=subprocess.PIPE, errors="replace")
    try:
        yield RunningService(process, f"http://127.0.0.1:{_read_port(process, command)}")
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _read_port(process: subprocess.Popen[str], command: list[str]) -> int:
    if process.stdout is None:
        raise RuntimeError("the service was started without a pipe")
    for line in process.stdout:
        words = line.split()
        if words and (match := _PORT.match(words[1] if words[0] == "curl" else words[0])):
            return int(match.group(1))
    raise EngineError(
        "The service exited before it was ready", where=" ".join(command[2:]), next_step="read its last lines above"
    )


def read_texts_to_send(path: str, number: int) -> list[str]:
    """Return up to `number` short reviews of a file."""
    from sentifactory.corpus.reading.review_files import read_texts
    from sentifactory.task.task import BINARY_SENTIMENT

    texts = (review.text for review in read_texts(Path(path), BINARY_SENTIMENT))
    return [text for text in texts if text.strip() and len(text) <= LONGEST_CHARS][:number]
