"""The training lock on systems that the tests do not run on: by its markers, and by what the package registry has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from sentifactory.system.environments import MINIMUM_MACOS, read_pip_settings

# (sys_platform, platform_machine, platform_system), and uv's name
MAC = ("darwin", "arm64", "Darwin")
ARM = ("linux", "aarch64", "Linux")
UV_NAMES = {MAC: "aarch64-apple-darwin", ARM: "aarch64-manylinux_2_28"}
CUDA_ALONE = re.compile(r"nvidia-|cuda-|triton$|bitsandbytes$")
SOURCES = ("snownlp",)  # pure Python, published as a source archive only
PATIENCE_S = 60


def list_pins(lock: Path, system: tuple[str, str, str], python: str = "3.11") -> dict[str, str]:
    """Return the versions that a lock has for a system, by name."""
    names = ("sys_platform", "platform_machine", "platform_system")
    facts = {
        **dict(zip(names, system, strict=True)),
        "python_version": python,
        "python_full_version": f"{python}.9",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    lines = re.findall(r"(?m)^([a-z0-9].*?) *\\\\?$", lock.read_text())
    pins = [Requirement(line) for line in lines]
    chosen = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(facts)]
    assert len({pin.name for pin in chosen}) == len(chosen), "two versions of one package"
    return {pin.name: str(pin.specifier) for pin in chosen}


@pytest.fixture
def lock(repo_root: Path) -> Path:
    return repo_root / "requirements" / "train.txt"


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_a_mac_gets_what_training_needs_and_nothing_of_cuda(lock: Path, python: str) -> None:
    pins = list_pins(lock, MAC, python)
    assert {"torch", "torchaudio", "torchvision", "transformers", "llamafactory", "onnxruntime", "gradio"} <= set(pins)
    assert [name for name in pins if CUDA_ALONE.match(name)] == []


def test_linux_on_arm_gets_the_versions_of_x86(lock: Path) -> None:
    assert list_pins(lock, ARM) == list_pins(lock, ("linux", "x86_64", "Linux"))


@pytest.fixture(scope="module")
def registry() -> dict[str, str]:
    """The environment for uv, with the package registry of this machine; skips where none answers."""
    settings = {**os.environ, **read_pip_settings(Path(sys.executable))}
    settings["MACOSX_DEPLOYMENT_TARGET"] = f"{MINIMUM_MACOS}.0"
    asked = ["pip", "compile", "--quiet", "--no-cache", "--no-deps", "-"]
    try:
        answer = run_uv(asked, settings, "packaging", timeout=20)
    except subprocess.TimeoutExpired:
        pytest.skip("no package registry answers")
    if answer.returncode != 0:
        pytest.skip("no package registry answers")
    return settings


def run_uv(
    words: list[str], settings: dict[str, str], text: str = "", timeout: int = PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    uv = Path(sys.executable).with_name("uv")
    return subprocess.run(
        [uv, *words], env=settings, input=text, capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("system", [MAC, ARM], ids=lambda system: f"{system[0]}-{system[1]}")
def test_every_package_can_be_installed_there(
    lock: Path, registry: dict[str, str], tmp_path: Path, system: tuple[str, str, str]
) -> None:
    """Wheels with the hashes of the lock, except for packages that are pure Python."""
    built = [word for name in SOURCES for word in ("--no-binary", name)]
    target = ["--python-version", "3.11", "--python-platform", UV_NAMES[system], "--target", str(tmp_path / "there")]
    trusted = ["--only-binary", ":all:", *built, "--require-hashes", "--requirement", str(lock)]
    found = run_uv(
        ["pip", "install", "--dry-run", "--no-progress", "--no-deps", *target, *trusted],
        registry,
    )
    assert found.returncode == 0, found.stderr
    installed = dict(re.findall(r"(?m)^ \+ (\S+?)(==\S+)$", found.stderr))
    assert installed == list_pins(lock, system)
