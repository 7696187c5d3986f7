"""Writes a tiny Qwen2 checkpoint as GGUF and serves it by a real llama.cpp, for tests of what its server answers.

The server is that of the package `xllamacpp`, or the `llama-server` in the PATH. As a program, this file serves: its
arguments are the GGUF file and the port.
"""

from __future__ import annotations

import contextlib
import json
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


def write_qwen_gguf(checkpoint: Path, file: Path) -> Path:
    """Write a Qwen2ForCausalLM in float32, with its tokenizer and chat template; return the file."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((checkpoint / "config.json").read_text())
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((checkpoint / "tokenizer_config.json").read_text(encoding="utf-8"))
    template = checkpoint / "chat_template.jinja"
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])

    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    ids = tokenizer["model"]["vocab"] | added
    names = {number: name for name, number in ids.items()}
    rows = range(config["vocab_size"])
    kinds = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([names.get(row, f"[PAD{row}]") for row in rows])
    writer.add_token_types(
        [kinds.UNUSED if row not in names else kinds.CONTROL if names[row] in added else kinds.NORMAL for row in rows]
    )
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(ids["<|im_end|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(template.read_text() if template.exists() else settings["chat_template"])

    known = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config["num_hidden_layers"])
    for name, values in load_file(checkpoint / "model.safetensors").items():
        writer.add_tensor(known.get_name(name, (".weight", ".bias")), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
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
