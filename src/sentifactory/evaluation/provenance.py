"""Where a result comes from: hashes of files and weights, run cards, versions, the machine and the command."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import sentifactory
from sentifactory.engines.vllm_install import find_vllm_python, inspect_install
from sentifactory.errors import ConfigError
from sentifactory.masking import mask_words
from sentifactory.models.weights import hash_settings, hash_weights
from sentifactory.training.run_card import read_card

PACKAGES = ("llamafactory", "torch", "transformers", "onnxruntime", "scikit-learn", "numpy")


def describe_model(folder: str | Path) -> dict[str, Any]:
    """Return what a report says about a model folder: weights and settings by hash, and its run card if any.

    A name that is no folder here (a model at an address) has nothing to be described.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        return {}
    facts: dict[str, Any] = {"weights": hash_weights(place), "settings": hash_settings(place)}
    card = read_card(place)
    if card is not None:
        facts["run_card"] = card
    return facts


def describe_versions(engines: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python, this package and those that can change a result; what is absent is left out.

    Args:
        engines: the engines in use; vLLM's version stands in an environment of its own.
    """
    versions = {"python": platform.python_version(), "sentifactory": sentifactory.__version__}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if "vllm" in engines:
        with contextlib.suppress(ConfigError):
            versions["vllm"] = inspect_install(find_vllm_python()).version
    return versions


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, memory and system; nothing that names the machine or its user."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _read_processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory_gib, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def describe_command() -> str:
    """Return the command line without secrets, as it can be typed in this folder with the environment active."""
    program = Path(sys.argv[0])
    if program.name == "sentifactory" or program.parts[-2:] == ("sentifactory", "cli.py"):  # the latter by `python -m`
        program = Path("sentifactory")
    elif program.is_absolute() and program.is_relative_to(Path.cwd()):
        program = program.relative_to(Path.cwd())
    return shlex.join([str(program), *mask_words(sys.argv[1:])])


def _read_processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
