"""Serves a GGUF file by the llama.cpp in the package `xllamacpp`; run as a program, which imports nothing of ours.

Arguments: the file, the port on this machine, the longest text in tokens.
"""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Serve until the process is ended."""
    import xllamacpp

    file, port, n_ctx = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    params = xllamacpp.CommonParams()
    params.model.path = file
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_ctx = n_ctx
    params.n_parallel = 1
    params.swa_full = True
    params.warmup = False
    server = xllamacpp.Server(params)
    print(f"Listening on {server.listening_address}", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
