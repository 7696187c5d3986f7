"""Systems without /proc, as macOS: processes, memory and cores are found by other means, and nothing outlives us.

These tests take /proc and the Linux calls away from this machine. They say nothing about a Mac itself.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from sentifactory.errors import ConfigError
from sentifactory.system import hardware, supervisor

SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "has_proc", lambda: False)
    monkeypatch.setattr(hardware, "has_proc", lambda: False)
    monkeypatch.setattr(hardware, "read_kilobytes", lambda *_: 0)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", SLEEP]) as process:
        yield process
        process.kill()


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_end(pids: list[int], within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, "it has outlived its parent"
        time.sleep(0.1)


def test_descendants_and_their_arguments_are_listed_by_ps(no_proc: None, child: subprocess.Popen[bytes]) -> None:
    assert child.pid in supervisor.list_children(os.getpid())
    assert child.pid in supervisor.list_descendants(os.getppid())
    assert supervisor.has_argument(child.pid, SLEEP)
    assert not supervisor.has_argument(child.pid, "another")


def test_a_system_without_ps_lists_none(no_proc: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert supervisor.list_descendants(os.getpid()) == []
    assert not supervisor.has_argument(os.getpid(), "pytest")


def test_memory_is_measured_by_psutil(no_proc: None, child: subprocess.Popen[bytes]) -> None:
    assert hardware.read_held_memory() > 10 << 20
    assert 0 < hardware.read_available_memory() <= psutil.virtual_memory().total
    assert hardware.read_free_memory(torch.device("mps")) > hardware.read_held_memory()
    assert hardware.read_memory(child.pid) > 1 << 20
    assert hardware.measure_peak_memory()["peak_rss_bytes"] >= hardware.read_held_memory() // 2
    child.kill()
    child.wait()
    assert hardware.read_memory(child.pid) == 0


def test_without_psutil_memory_is_unknown(no_proc: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert hardware.read_held_memory() == hardware.read_available_memory() == 0


def test_cores_are_counted_without_an_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert len(hardware.list_usable_cores()) == hardware.describe_machine()["cores"] == os.cpu_count()


def test_a_supervisor_ends_its_server_without_proc() -> None:
    """Its pipe is closed, as at the death of its parent; and it finds the server's child."""
    command = (
        f"import subprocess, sys, time; print(subprocess.Popen([sys.executable, '-c', '{SLEEP}']).pid, flush=True)"
    )
    program = (
        "import sys; from sentifactory.system import supervisor as it; it.has_proc = lambda: False; "
        "it.call_prctl = lambda *_: None; sys.exit(it.main())"
    )
    words = [sys.executable, "-c", program, f"--parent={os.getpid()}", "--grace_s=0.2", "--", sys.executable, "-c"]
    with subprocess.Popen([*words, f"{command}; {SLEEP}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        grandchild = int(process.stdout.readline())
        below = supervisor.list_descendants(process.pid)
        assert grandchild in below
        process.stdin.close()
        process.wait(60)
    wait_for_end(below)


def test_a_process_of_ours_ends_with_its_parent_without_a_signal_of_the_kernel() -> None:
    waits = (
        "import sys, time; sys.platform = 'darwin'; from sentifactory.system.own_process import end_with_parent; "
        "end_with_parent(); print(flush=True); time.sleep(60)"
    )
    starts = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {waits!r}], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\nprint(child.pid)"
    )
    parent = subprocess.run([sys.executable, "-c", starts], capture_output=True, text=True, timeout=60, check=True)
    wait_for_end([int(parent.stdout)])


@pytest.mark.parametrize(
    ("system", "machine", "device"),
    [("darwin", "arm64", "mps"), ("darwin", "x86_64", "cpu"), ("linux", "aarch64", "cpu")],
)
def test_the_device_is_known_before_torch_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: str, machine: str, device: str
) -> None:
    monkeypatch.delenv("SENTIFACTORY_DEVICE", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))  # without nvidia-smi
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert hardware.find_device() == device
    monkeypatch.setenv("SENTIFACTORY_DEVICE", "cpu")
    assert hardware.find_device() == "cpu"


@pytest.mark.parametrize(
    ("has_cuda", "has_mps", "wish", "device"),
    [
        (False, True, None, "mps"),
        (True, True, None, "cuda"),
        (False, False, None, "cpu"),
        (False, True, "cpu", "cpu"),
        (True, True, "mps", "mps"),
    ],
)
def test_a_model_goes_where_torch_is_fastest(
    monkeypatch: pytest.MonkeyPatch, has_cuda: bool, has_mps: bool, wish: str | None, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has_mps)
    monkeypatch.delenv("SENTIFACTORY_DEVICE", raising=False)
    if wish:
        monkeypatch.setenv("SENTIFACTORY_DEVICE", wish)
    assert hardware.choose_torch_device() == device


def test_the_cache_of_an_apple_chip_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[str] = []
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: emptied.append("mps"))
    hardware.empty_device_cache("mps")
    hardware.empty_device_cache("cpu")
    assert emptied == ["mps"]


def test_a_full_device_is_told_from_other_errors() -> None:
    assert hardware.is_device_full(torch.OutOfMemoryError("CUDA out of memory"))
    assert hardware.is_device_full(RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"))
    assert not hardware.is_device_full(RuntimeError("shape mismatch"))


@pytest.mark.parametrize("wish", ["tpu", "mps"])
def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, wish: str) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setenv("SENTIFACTORY_DEVICE", wish)
    with pytest.raises(ConfigError) as found:
        hardware.choose_torch_device()
    assert found.value.code == "device"
