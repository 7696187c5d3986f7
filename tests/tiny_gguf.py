"""Writes a tiny checkpoint as GGUF and serves it by a real llama.cpp, for tests of what its server answers.

The server is that of the package `xllamacpp`, or the `llama-server` in the PATH. As a program, this file serves: its
arguments are the GGUF file and the port.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

HAS_LLAMA_CPP = find_spec("xllamacpp") is not None or shutil.which("llama-server") is not None
WITHOUT_LLAMA_CPP = "it needs llama.cpp: the package xllamacpp, or llama-server in the PATH"
N_CONTEXT = 2048  # of each of the server's four slots
READY_S = 60


def write_small_gguf(checkpoint: Path) -> Path:
    """Write a checkpoint as GGUF in float16 next to it, as an export does; return the file."""
    from transformers import AutoTokenizer

    from sentifactory.models.decoder_folder import read_decoder
    from sentifactory.publishing.gguf.gguf_writing import FileFacts, plan_gguf, write_gguf

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    plan = plan_gguf(read_decoder(checkpoint), "f16")
    file = checkpoint / "model-f16.gguf"
    write_gguf(plan, tokenizer, [tokenizer.eos_token_id], file, FileFacts(checkpoint.name, ""))
    return file


@contextlib.contextmanager
def serve_gguf(file: Path) -> Iterator[str]:
    """Serve a GGUF file; gives the address, without waiting until the model is loaded."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    command = [sys.executable, __file__, str(file), port]
    if find_spec("xllamacpp") is None:
        command = ["llama-server", "--model", str(file), "--port", port, "--ctx-size", str(4 * N_CONTEXT)]
        command += ["--parallel", "4", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until_ready(int(port), process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    import httpx

    end = time.monotonic() + READY_S
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).is_success:
                return
        time.sleep(0.1)
    raise AssertionError(f"llama.cpp is not ready (exit code {process.poll()})")


def main() -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.port = sys.argv[1], int(sys.argv[2])
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 4 * N_CONTEXT, 4, 1
    params.warmup = False
    _server = xllamacpp.Server(params)
    signal.pause()


if __name__ == "__main__":
    main()
