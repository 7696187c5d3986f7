"""Creates the two virtual environments from the lock files under `requirements/`.

`.venv` holds data, training, evaluation and the page; `.venv-vllm` holds vLLM alone, because LLaMA-Factory and vLLM
need incompatible versions of transformers and starlette. This module uses the standard library only: `make` runs it
before anything is installed. It says what an installation costs before it fetches anything. A stamp file, written
last, holds the hash of everything that an environment is built from: if it matches, there is nothing to do; after an
interrupted set-up it is missing, and the same command continues.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from sentifactory.errors import EXIT_BAD_INPUT, ConfigError, SentiFactoryError
from sentifactory.system.file_lock import lock_file, open_lock
from sentifactory.system.hardware import has_nvidia_gpu

STAMP_NAME = ".sentifactory-stamp"
PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
MINIMUM_PYTHON = (3, 11)
MINIMUM_MACOS = 14  # wheels of av, which LLaMA-Factory imports, are for no older one
# What the lock files can be installed on: `sys.platform` and `platform.machine()`.
PLATFORMS = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
VLLM_PLATFORM = ("linux", "x86_64")
VLLM_VARIABLE = "SENTIFACTORY_VLLM"
NO_VLLM = "none"


@dataclass(frozen=True, slots=True)
class Cost:
    """What an environment costs.

    Attributes:
        download_gb: wheels that are fetched, if none of them is in uv's cache.
        room_gb: disk space; uv's cache shares its files through hard links.
        cuda_gb: the part of download_gb that only a CUDA GPU needs.
    """

    download_gb: float
    room_gb: float
    cuda_gb: float = 0.0


# Downloads are the sizes of the locked wheels for Python 3.11, as the registry states them. The room of `train` and
# `vllm-cpu` was measured on Linux x86-64 with `du`; that of the others is computed from it and from the downloads.
COSTS = {
    "train": Cost(3.9, 7.5, cuda_gb=2.2),
    "train-macos": Cost(1.1, 3.1),
    "vllm-cpu": Cost(0.9, 3.2),
    "vllm-cuda": Cost(4.0, 12.0),
}
_ROOM_MARGIN = 1.15
# Set by hosts such as Colab for packages of their own. They would change where the locks are installed, or contradict
# the versions that the locks pin.
_FOREIGN_SETTINGS = (
    "UV_SYSTEM_PYTHON",
    "UV_CONSTRAINT",
    "UV_BUILD_CONSTRAINT",
    "UV_OVERRIDE",
    "PIP_CONSTRAINT",
    "PIP_BUILD_CONSTRAINT",
)


def say(text: str) -> None:
    """Print a line about the set-up."""
    print(f"[set-up] {text}", file=sys.stderr, flush=True)


def wants_modelscope() -> bool:
    """Return whether to use ModelScope instead of the Hugging Face hub: USE_MODELSCOPE_HUB, as in LLaMA-Factory."""
    return os.environ.get("USE_MODELSCOPE_HUB", "").lower() in ("1", "true", "yes", "on")


def describe_platform() -> str:
    """Return the system and the processor of this machine, such as `Linux on x86_64`."""
    return f"{platform.system()} on {platform.machine()}"


def is_vllm_unwanted() -> bool:
    """Return whether the user does without vLLM: SENTIFACTORY_VLLM=none.

    Raises:
        ConfigError: when the variable has another value.
    """
    wish = os.environ.get(VLLM_VARIABLE, "")
    if wish not in ("", NO_VLLM):
        raise ConfigError(
            f"{VLLM_VARIABLE} is {wish!r}",
            expected=f"{NO_VLLM} (do without vLLM), or nothing",
            next_step="correct it or unset it",
            code="option-value",
        )
    return wish == NO_VLLM


def explain_left_out_vllm() -> str | None:
    """Return why the set-up leaves vLLM out on this machine, as a clause; None if it does not.

    Raises:
        ConfigError: when SENTIFACTORY_VLLM has an unknown value.
    """
    if is_vllm_unwanted():
        return f"{VLLM_VARIABLE}={NO_VLLM}"
    if (sys.platform, platform.machine()) != VLLM_PLATFORM:
        return f"it is locked for Linux on x86_64, and this is {describe_platform()}"
    return None


def name_environment(kind: str) -> str:
    """Return the name in `COSTS` of an environment (kind `train` or `vllm`) on this machine."""
    if kind == "train":
        return "train-macos" if sys.platform == "darwin" else "train"
    return "vllm-cuda" if has_nvidia_gpu() else "vllm-cpu"


def list_lock_files(name: str, root: Path) -> list[Path]:
    """Return the lock files that make up an environment of `COSTS`."""
    files = {
        "train": ["bootstrap.txt", "train.txt"],
        "train-macos": ["bootstrap.txt", "train.txt"],
        "vllm-cpu": ["vllm-cpu.txt", "torch-cpu.txt"],
        "vllm-cuda": ["vllm-cuda.txt"],
    }
    return [root / "requirements" / file for file in files[name]]


def compute_stamp(name: str, root: Path) -> str:
    """Return a hash of an environment's sources: lock files, Python, and for training our pyproject.toml."""
    digest = hashlib.sha256(os.fsencode(f"{name} {sys.version} {root}"))
    for file in list_lock_files(name, root) + ([root / "pyproject.toml"] if name.startswith("train") else []):
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
    """Run one step of the set-up and show its output; settings that are foreign to the locks are left out.

    Raises:
        ConfigError: when the step fails.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in _FOREIGN_SETTINGS}
    finished = subprocess.run(command, env={**inherited, **(environment or {})}, check=False)
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
    steps: list[list[str | Path]] = [["-m", "venv", "--clear", folder]]
    if find_spec("ensurepip") is None:  # Debian has it in a package of its own, which Colab leaves out
        steps = [
            ["-m", "venv", "--clear", "--without-pip", folder],
            ["-m", "pip", "--python", folder, "install", "--quiet", f"pip=={_read_pip_version()}"],
        ]
    if any(subprocess.run([sys.executable, *step], check=False).returncode != 0 for step in steps):
        raise ConfigError(
            f"{sys.executable} cannot create a virtual environment",
            next_step="install your system's venv package (Debian and Ubuntu: apt install python3-venv)",
        )
    return python


def _read_pip_version() -> str:
    """Return the version of this Python's pip, which the user trusts already; "" where it has none."""
    try:
        return version("pip")
    except PackageNotFoundError:
        return ""


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


def check_machine() -> None:
    """Refuse a Python or a system that the lock files have no packages for.

    Raises:
        ConfigError: when it is one.
    """
    if sys.version_info < MINIMUM_PYTHON:
        raise ConfigError(
            f"This is Python {sys.version.split()[0]}",
            expected="Python 3.11 or newer",
            next_step="run make PYTHON=/path/to/python3.11",
            code="python-old",
        )
    if (sys.platform, platform.machine()) not in PLATFORMS:
        raise ConfigError(
            f"PyTorch has no build for {describe_platform()}",
            expected="Linux on x86_64 or aarch64, or macOS on an Apple chip (on Windows: WSL2)",
            next_step="run it on such a machine",
            code="platform",
        )
    if sys.platform == "darwin" and int(platform.mac_ver()[0].partition(".")[0] or MINIMUM_MACOS) < MINIMUM_MACOS:
        raise ConfigError(
            f"This is macOS {platform.mac_ver()[0]}",
            expected=f"macOS {MINIMUM_MACOS} or newer",
            next_step="update the system",
            code="platform",
        )


def check_disk_space(names: Sequence[str], root: Path) -> None:
    """Refuse to start when the disk would run full.

    Raises:
        ConfigError: when less space is free than the environments need.
    """
    free_gb = shutil.disk_usage(root).free / 1e9
    needed_gb = sum(COSTS[name].room_gb for name in names) * _ROOM_MARGIN
    if free_gb < needed_gb:
        raise ConfigError(
            f"{free_gb:.1f} GB are free, but {' and '.join(names)} may need {needed_gb:.1f} GB",
            where=str(root),
            next_step="free some space and run the same command"
            + (
                ", or leave vLLM out: make setup WITHOUT=vllm"
                if any(name.startswith("vllm") for name in names)
                else ""
            ),
            code="disk-full",
        )


def announce_costs(names: Sequence[str]) -> None:
    """Print about how much is downloaded for environments and how much room they take, and how to do with less."""
    for name in names:
        say(f"{name}: downloads about {COSTS[name].download_gb:g} GB, takes about {COSTS[name].room_gb:g} GB of disk")
    cuda_gb = sum(COSTS[name].cuda_gb for name in names)
    if cuda_gb and not has_nvidia_gpu():
        say(
            f"{cuda_gb:g} GB of the download are CUDA libraries, although there is no NVIDIA GPU: the torchaudio of "
            "the package registry, which LLaMA-Factory imports, does not load without them"
        )
    if any(name.startswith("vllm") for name in names):
        say(
            f"to do with less: make setup WITHOUT=vllm, or {VLLM_VARIABLE}={NO_VLLM} for all commands; language "
            "models are then asked through transformers"
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


def choose_kinds(kinds: Sequence[str], *, without: Sequence[str] = ()) -> list[str]:
    """Return the kinds of environments that this machine gets, and say why one is left out.

    Args:
        kinds: `train` and `vllm`.
        without: kinds that the user does without.

    Raises:
        ConfigError: when SENTIFACTORY_VLLM has an unknown value.
    """
    reason = "WITHOUT=vllm" if "vllm" in without else explain_left_out_vllm()
    if "vllm" not in kinds or reason is None:
        return list(kinds)
    say(f"vLLM is left out ({reason}): language models are asked through transformers")
    return [kind for kind in kinds if kind != "vllm"]


def prepare_environments(kinds: Sequence[str], root: Path) -> None:
    """Bring `.venv` (kind `train`) and `.venv-vllm` (kind `vllm`) up to date with their lock files.

    Raises:
        ConfigError: when the machine is unfit, the disk is too full, or a step fails.
    """
    check_machine()
    names = [name_environment(kind) for kind in kinds]
    if outdated := [name for name in names if not is_current(name, root)]:
        announce_costs(outdated)
        check_disk_space(outdated, root)
    for name in outdated:
        prepare_environment(name, root)


def find_folder(name: str, root: Path) -> Path:
    """Return the folder of an environment of `COSTS`."""
    return root / (".venv" if name.startswith("train") else ".venv-vllm")


def is_current(name: str, root: Path) -> bool:
    """Return whether an environment was built from what is there now."""
    stamp_file = find_folder(name, root) / STAMP_NAME
    return stamp_file.exists() and stamp_file.read_text() == compute_stamp(name, root)


def prepare_environment(name: str, root: Path) -> None:
    """Build an environment of `COSTS`, or continue to.

    Raises:
        ConfigError: when a step fails.
    """
    folder, is_train = find_folder(name, root), name.startswith("train")
    stamp_file, stamp = folder / STAMP_NAME, compute_stamp(name, root)
    start = time.monotonic()
    stamp_file.unlink(missing_ok=True)
    python = create_environment(folder)
    settings = read_pip_settings(python)
    uv = root / ".venv" / "bin" / "uv"
    into = ("--python", python)  # not VIRTUAL_ENV, which other settings overrule
    if is_train:
        say("installing the installer (uv)")
        bootstrap = root / "requirements" / "bootstrap.txt"
        run_step([python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", bootstrap])
    locks = [lock for lock in list_lock_files(name, root) if lock.name != "torch-cpu.txt"]
    say(f"installing {name} into {folder.name} from {', '.join(lock.name for lock in locks)}")
    run_step([uv, "pip", "sync", *into, "--require-hashes", *locks], environment=settings)
    if is_train:
        # Built with the locked setuptools: an isolated build would download one that no hash verifies.
        run_step(
            [uv, "pip", "install", *into, "--quiet", "--no-deps", "--no-build-isolation", "--editable", root],
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
    parser.add_argument("--without", action="append", default=[], choices=["vllm"], help="leave this environment out")
    options = parser.parse_args()
    root = Path(__file__).resolve().parents[3]
    try:
        kinds = choose_kinds(options.kinds, without=options.without)
        with hold_lock(root):
            prepare_environments(kinds, root)
    except SentiFactoryError as error:
        print(f"Error: {error.describe()}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)


if __name__ == "__main__":
    main()
