"""Creates the two virtual environments from the locks under `requirements/`.

`.venv` holds data, training, evaluation and the page; `.venv-vllm` holds vLLM alone, because LLaMA-Factory and vLLM
need versions of transformers and starlette that exclude each other. This module runs on a bare Python (standard
library only): `make` calls it before anything is installed. Doing nothing when all is up to date is decided by a
stamp, written last, that names the hash of everything an environment is made from; an interrupted set-up has no stamp
and is continued by the same command.
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
from sentifactory.file_lock import lock_file, open_lock

STAMP_NAME = ".sentifactory-stamp"
PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
MINIMUM_PYTHON = (3, 11)
# Room that an environment takes, with some to spare; uv's cache shares its files by hard links.
ROOM_GB = {"train": 8, "vllm-cpu": 4, "vllm-cuda": 14}


def say(text: str) -> None:
    """Print a line about the set-up."""
    print(f"[set-up] {text}", file=sys.stderr, flush=True)


def has_nvidia_gpu() -> bool:
    """Return whether `nvidia-smi` lists a GPU; SENTIFACTORY_DEVICE=cpu or cuda decides instead when it is set."""
    wish = os.environ.get("SENTIFACTORY_DEVICE", "")
    if wish:
        if wish not in ("cpu", "cuda"):
            raise ConfigError(
                f"SENTIFACTORY_DEVICE is {wish!r}", expected="cpu or cuda", next_step="set it or unset it"
            )
        return wish == "cuda"
    if shutil.which("nvidia-smi") is None:
        return False
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, errors="replace", check=False)
    return listing.returncode == 0 and "GPU " in listing.stdout


def wants_modelscope() -> bool:
    """Return whether ModelScope is asked in place of the Hugging Face hub: USE_MODELSCOPE_HUB, as in LLaMA-Factory."""
    return os.environ.get("USE_MODELSCOPE_HUB", "").lower() in ("1", "true", "yes", "on")


def locks_for(name: str, root: Path) -> list[Path]:
    """Return the lock files that make up an environment (`train`, `vllm-cpu` or `vllm-cuda`)."""
    files = {
        "train": ["bootstrap.txt", "train.txt"],
        "vllm-cpu": ["vllm-cpu.txt", "torch-cpu.txt"],
        "vllm-cuda": ["vllm-cuda.txt"],
    }
    return [root / "requirements" / file for file in files[name]]


def compute_stamp(name: str, root: Path) -> str:
    """Return a hash of all that an environment is made from: locks, Python, and for `train` our pyproject.toml."""
    digest = hashlib.sha256(os.fsencode(f"{name} {sys.version} {root}"))
    for file in locks_for(name, root) + ([root / "pyproject.toml"] if name == "train" else []):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def read_pip_settings(python: Path) -> dict[str, str]:
    """Return uv's variables for the indexes and the certificate that pip is configured with.

    uv does not read pip's configuration, and a user behind a mirror has it there. pip's find-links stay out: a CPU
    build of torch that lies there would be taken for the build that torchvision and torchaudio need.
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
        # Every file is checked against the hash in its lock, so all of pip's indexes may be trusted alike.
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
            next_step="read the lines above; when the network or the disk is in order, run the same command again",
        )


def create_environment(folder: Path) -> Path:
    """Create the virtual environment unless a working one stands there, and return its Python.

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
    """Install the CPU build of torch: from where pip is configured to look, else from PyTorch's CPU index.

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
    say("pip's own configuration has no CPU build of torch: taking it from PyTorch's CPU index")
    run_step([*wanted, "--index-url", PYTORCH_CPU_INDEX])


def check_room(name: str, root: Path) -> None:
    """Stop before the disk runs full.

    Raises:
        ConfigError: when less is free than the environment takes.
    """
    free_gb = shutil.disk_usage(root).free / 1e9
    if free_gb < ROOM_GB[name]:
        raise ConfigError(
            f"{free_gb:.1f} GB are free and the environment {name} takes up to {ROOM_GB[name]} GB",
            where=str(root),
            next_step="free some space and run the same command",
        )


@contextmanager
def hold_lock(root: Path) -> Iterator[None]:
    """Let one set-up work in a checkout at a time; a second one waits."""
    with open_lock(root / ".set-up.lock") as stream:
        try:
            lock_file(stream, root / ".set-up.lock")
        except BlockingIOError:
            say("another set-up is at work in this folder: waiting for it")
            lock_file(stream, root / ".set-up.lock", waits=True)
        yield


def prepare_environment(kind: str, root: Path) -> None:
    """Bring `.venv` (kind `train`) or `.venv-vllm` (kind `vllm`) up to date with its lock.

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
    check_room(name, root)
    start = time.monotonic()
    stamp_file.unlink(missing_ok=True)
    python = create_environment(folder)
    settings = {**read_pip_settings(python), "VIRTUAL_ENV": str(folder)}
    uv = root / ".venv" / "bin" / "uv"
    if kind == "train":
        say("installing the installer (uv)")
        bootstrap = root / "requirements" / "bootstrap.txt"
        run_step([python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", bootstrap])
    locks = [lock for lock in locks_for(name, root) if lock.name != "torch-cpu.txt"]
    say(f"installing {name} into {folder.name} from {', '.join(lock.name for lock in locks)}")
    run_step([uv, "pip", "sync", "--require-hashes", *locks], environment=settings)
    if kind == "train":
        # Built by the setuptools of the lock: an isolated build would fetch one whose hash nobody has checked.
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
    root = Path(__file__).resolve().parents[2]
    try:
        with hold_lock(root):
            for kind in parser.parse_args().kinds:
                prepare_environment(kind, root)
    except SentiFactoryError as error:
        print(f"Error: {error.describe()}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)


if __name__ == "__main__":
    main()
