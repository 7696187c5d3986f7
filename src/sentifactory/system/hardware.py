"""Processor, memory and GPU of this machine, and the memory that processes use.

Standard library only, because the set-up runs before anything is installed. Reads /proc where it exists; elsewhere
psutil, which comes with accelerate, gives the memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sentifactory.errors import ConfigError
from sentifactory.system.supervisor import has_proc, list_descendants

EVERY_S = 0.25
DEVICES = ("cpu", "cuda", "mps")
_IDLE_BYTES = 1 << 30
CGROUPS = Path("/sys/fs/cgroup")
# Of version 2 and of version 1: limit, use, statistics, and the part of the use that the kernel can give back.
_MEMORY_LIMITS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
# Instruction sets that multiply bf16 matrices faster than float32 ones, the fastest first.
BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")


def has_nvidia_gpu() -> bool:
    """Return whether `nvidia-smi` lists a GPU; SENTIFACTORY_DEVICE overrides it."""
    if wish := read_wished_device():
        return wish == "cuda"
    if shutil.which("nvidia-smi") is None:
        return False
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, errors="replace", check=False)
    return listing.returncode == 0 and "GPU " in listing.stdout


def read_wished_device() -> str | None:
    """Return SENTIFACTORY_DEVICE, by which a user chooses the device; None where it is not set.

    Raises:
        ConfigError: when it is no device.
    """
    wish = os.environ.get("SENTIFACTORY_DEVICE") or None
    if wish not in (None, *DEVICES):
        raise ConfigError(
            f"SENTIFACTORY_DEVICE is {wish!r}",
            expected=f"{', '.join(DEVICES[:-1])} or {DEVICES[-1]}",
            next_step="set it or unset it",
            code="device",
        )
    return wish


def find_device() -> str:
    """Return the device of this machine, without loading torch: `cuda`, `mps` (the GPU of an Apple chip) or `cpu`."""
    if wish := read_wished_device():
        return wish
    if has_nvidia_gpu():
        return "cuda"
    return "mps" if (sys.platform, platform.machine()) == ("darwin", "arm64") else "cpu"


def choose_torch_device() -> str:
    """Return the device for a model in this process: that of SENTIFACTORY_DEVICE, or the fastest that torch offers.

    Raises:
        ConfigError: when SENTIFACTORY_DEVICE is none that torch offers here.
    """
    import torch

    is_there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    wish = read_wished_device()
    if wish and not is_there[wish]:
        raise ConfigError(
            f"SENTIFACTORY_DEVICE is {wish!r}, which torch does not find on this machine",
            expected=", ".join(device for device, is_found in is_there.items() if is_found),
            next_step="set it or unset it",
            code="device",
        )
    return wish or next(device for device, is_found in is_there.items() if is_found)


def is_device_full(error: BaseException) -> bool:
    """Return whether an error of torch says that a GPU has too little memory; Apple's has no class of its own."""
    return type(error).__name__ == "OutOfMemoryError" or "MPS backend out of memory" in str(error)


def empty_device_cache(device: str) -> None:
    """Give memory that torch keeps on a GPU for later back to the system; does nothing for the CPU."""
    import torch

    if device != "cpu":
        torch.get_device_module(device).empty_cache()


def list_usable_cores() -> list[int]:
    """Return the ids of the cores in our CPU affinity, at most as many as the container's quota."""
    if not hasattr(os, "sched_getaffinity"):
        return list(range(os.cpu_count() or 1))
    cores = sorted(os.sched_getaffinity(0))
    try:
        quota, period = (CGROUPS / "cpu.max").read_text().split()
        allowed = math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return cores
    return cores[: max(1, allowed)]


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, memory and system, without anything that identifies the machine or its user."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _read_processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory_gib, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _read_processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def read_processor_flags() -> frozenset[str]:
    """Return the instruction sets of the processor, by Linux' names; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))


def find_bf16_instructions() -> str | None:
    """Return the instruction set by which the processor multiplies bf16 matrices fast, or None."""
    flags = read_processor_flags()
    return next((name for name in BF16_INSTRUCTIONS if name in flags), None)


def read_held_memory() -> int:
    """Return this process's resident memory in bytes; 0 if unknown."""
    return read_kilobytes("/proc/self/status", "VmRSS:") or _ask_psutil(
        lambda psutil: psutil.Process().memory_info().rss
    )


def count_unread_bytes(suffix: str) -> int:
    """Return the bytes of mapped files that this process has not read yet; 0 where the system does not tell.

    Args:
        suffix: of the names of the files.
    """
    try:
        lines = Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    unread, is_wanted = 0, False
    for line in lines:
        first, _, rest = line.partition(" ")
        if not first.endswith(":"):  # the range of addresses; the name of the file is last
            is_wanted = line.endswith(suffix)
        elif is_wanted and first in ("Size:", "Rss:"):
            unread += int(rest.split()[0]) * 1024 * (1 if first == "Size:" else -1)
    return unread


def read_free_memory(device: Any) -> int:
    """Return the bytes that this process could use on a device, including what it already uses; 0 if unknown."""
    if device.type == "cuda":
        torch = sys.modules["torch"]
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    # The GPU of an Apple chip has no memory of its own.
    return read_available_memory() + read_held_memory()


def read_available_memory() -> int:
    """Return the bytes of memory that programs can still get without swapping; 0 if unknown.

    In a container that is what its limit leaves, where this is less.
    """
    found = read_kilobytes("/proc/meminfo", "MemAvailable:")
    found = found or _ask_psutil(lambda psutil: psutil.virtual_memory().available)
    left = _read_left_by_limit()
    return found if left is None else min(found, left)


def _read_left_by_limit() -> int | None:
    """Return the bytes that the memory limit of our control group leaves; None where there is no limit."""
    for limit, used, statistics, cache in _MEMORY_LIMITS:
        try:
            left = int((CGROUPS / limit).read_text()) - int((CGROUPS / used).read_text())
            counts = dict(line.partition(" ")[::2] for line in (CGROUPS / statistics).read_text().splitlines())
        except (OSError, ValueError):  # another version, or "max"
            continue
        return max(1, left + int(counts.get(cache, 0)))  # 0 would be unknown
    return None


def _ask_psutil(question: Callable[[Any], int]) -> int:
    """Return what psutil answers; 0 where it is not installed, or where there is no such process."""
    try:
        import psutil
    except ImportError:
        return 0
    try:
        return int(question(psutil))
    except psutil.Error:
        return 0


def measure_peak_memory() -> dict[str, int]:
    """Return this process's peak memory in bytes, on the CPU and, where used, on CUDA."""
    unit = 1 if sys.platform == "darwin" else 1024
    found = {"peak_rss_bytes": read_peak_rss() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        found["peak_cuda_bytes"] = torch.cuda.max_memory_allocated()
    return found


def read_device_peak(memory: Mapping[str, int]) -> int:
    """Return the training device's peak from the result of `measure_peak_memory`."""
    return memory.get("peak_cuda_bytes", memory["peak_rss_bytes"])


def read_kilobytes(file: str, key: str) -> int:
    """Return a value of a /proc file, converted from kilobytes to bytes; 0 if the file or line is missing.

    Args:
        file: such as /proc/meminfo.
        key: start of the line, such as `MemAvailable:`.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)


def read_peak_rss(process: int | str = "self") -> int:
    """Return a process's peak resident memory in bytes; 0 if unknown.

    Unlike getrusage, this value does not start from the parent's peak.
    """
    return read_kilobytes(f"/proc/{process}/status", "VmHWM:")


class HeapTrimmer:
    """Returns freed memory to the system once too much of it lies idle in the heap of glibc.

    glibc keeps what a training step frees, in pieces that the next, longer batch cannot use (its `memalign`, by which
    PyTorch allocates, finds no piece of exactly the same size again), so that a run grows by GB. Returning everything
    after every step would cost the time of mapping it again.
    """

    def __init__(self) -> None:
        self._trim: Callable[[int], int] | None = None
        with contextlib.suppress(AttributeError, OSError):  # not glibc
            self._trim = ctypes.CDLL(None).malloc_trim
        self._limit = 0

    def trim_if_grown(self) -> None:
        """Return freed memory where the process has grown by more than 1 GiB since the last time."""
        if self._trim is None or (held := _read_private_memory()) <= self._limit:
            return
        if self._limit:
            self._trim(0)
            held = _read_private_memory()
        self._limit = held + _IDLE_BYTES


def _read_private_memory() -> int:
    return read_kilobytes("/proc/self/status", "RssAnon:")


class MemoryWatch:
    """Measures the peak memory of the descendants that a process starts within the `with` block.

    Uses the proportional set size, so pages shared by several processes of a server are counted once.

    Args:
        parent: the process whose new descendants are measured.
        is_whole: measure the process itself and its earlier descendants as well.
    """

    def __init__(self, parent: int, *, is_whole: bool = False) -> None:
        self._parent = parent
        self._is_whole = is_whole
        self._before: frozenset[int] = frozenset()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_bytes: int | None = None

    def __enter__(self) -> Self:
        """Start measuring."""
        if not self._is_whole:
            self._before = frozenset(list_descendants(self._parent))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop measuring."""
        self._stop.set()
        self._thread.join()
        if self._is_whole:  # the block may have been shorter than the first interval
            self._measure()

    def _watch(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._measure()

    def _measure(self) -> None:
        ours = [process for process in list_descendants(self._parent) if process not in self._before]
        held = sum(map(read_memory, [self._parent, *ours] if self._is_whole else ours))
        if held:
            self.peak_bytes = max(self.peak_bytes or 0, held)


def read_memory(process: int) -> int:
    """Return a process's memory in bytes, 0 if it has ended.

    Pages that processes share are divided among them on Linux, and counted for each of them elsewhere.
    """
    if has_proc():
        return read_kilobytes(f"/proc/{process}/smaps_rollup", "Pss:")
    return _ask_psutil(lambda psutil: psutil.Process(process).memory_info().rss)
