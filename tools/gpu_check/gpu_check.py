"""Runs the parts of the check one after the other, and writes the table after each, however far it came.

A part that fails, hangs or kills its process costs its own rows only. Nothing is fetched: the model has random weights
of the real shape, and the reviews are made up. `python -m tools.gpu_check.wheels` lists the packages that it needs.

Example:
    python -m tools.gpu_check.gpu_check --output_dir saves/gpu_check
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.cli import run_script
from sentifactory.system.atomic import write_json, write_text
from sentifactory.system.hardware import describe_machine
from sentifactory.system.json_text import read_json_object
from sentifactory.system.progress import say
from sentifactory.system.supervisor import list_descendants, send_signal
from sentifactory.training.run.run_card import read_versions
from tools.gpu_check.check_parts import FAILED, MEASURED, NOT_MEASURED, PARTS, CheckPart
from tools.gpu_check.gpu_check_report import write_report

_TAIL_CHARS = 3000
_NO_CUDA = "no CUDA GPU"


def run_check(
    folder: Path,
    *,
    is_small: bool,
    limit_s: float,
    parts: Sequence[CheckPart] = PARTS,
    follow: Callable[[dict[str, Any]], None] = lambda report: None,
) -> dict[str, Any]:
    """Run all parts for which there is time, and return the report.

    Args:
        folder: an empty folder, for models and runs.
        is_small: tiny models on the CPU.
        limit_s: for all parts together.
        parts: in their order.
        follow: called with the report after each part, and before the first.
    """
    start_s = time.monotonic()
    gpu = find_gpu()
    report: dict[str, Any] = {
        "machine": describe_machine(), "gpu": gpu, "versions": read_versions(), "is_small": is_small,
        "limit_s": limit_s,
        "parts": {part.name: {"status": NOT_MEASURED, "note": "not reached"} for part in parts},
    }  # fmt: skip
    follow(report)
    for part in parts:
        say(f"Checking  {part.name}")
        left_s = limit_s - (time.monotonic() - start_s)
        report["parts"][part.name] = _run_part(part, folder, report, left_s, is_small=is_small)
        report["seconds"] = round(time.monotonic() - start_s, 1)
        follow(report)
    return report


def _run_part(
    part: CheckPart, folder: Path, report: dict[str, Any], left_s: float, *, is_small: bool
) -> dict[str, Any]:
    """Run a part in a process of its own, and return its entry of the report."""
    if report["gpu"] is None and (part.needs_cuda or not is_small):
        return {"status": NOT_MEASURED, "note": _NO_CUDA}
    if part.after and report["parts"][part.after]["status"] != MEASURED:
        return {"status": NOT_MEASURED, "note": f"the part {part.after} has not been measured"}
    if left_s <= 0:
        return {"status": NOT_MEASURED, "note": "the time was over"}
    start_s, limit_s = time.monotonic(), min(part.limit_s, left_s)
    command = [sys.executable, "-m", "tools.gpu_check.measure", part.name, str(folder), *(["--small"] * is_small)]
    with (folder / f"{part.name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end_session(process)
    found = {"seconds": round(time.monotonic() - start_s, 1)}
    if code is None:
        return {"status": FAILED, "note": f"ended after {limit_s:.0f} s", **found}
    if code:
        tail = (folder / f"{part.name}.log").read_text(encoding="utf-8", errors="replace")[-_TAIL_CHARS:].strip()
        last = tail.rpartition("\n")[2]
        status = NOT_MEASURED if last.startswith("ModuleNotFoundError") else FAILED
        return {"status": status, "note": last, "exit_code": code, "log": tail, **found}
    return {"status": MEASURED, "note": "", **found, "values": read_json_object(folder / f"{part.name}.json")}


def _end_session(process: subprocess.Popen[bytes]) -> None:
    """Kill all processes that a part has started, in whatever group they are."""
    for pid in list_descendants(process.pid):
        send_signal(pid, signal.SIGKILL)
    process.kill()
    process.wait()


def find_gpu() -> dict[str, Any] | None:
    """Return name, memory and number of the CUDA GPUs, or None."""
    import torch

    if not torch.cuda.is_available():
        return None
    facts = torch.cuda.get_device_properties(0)
    return {"name": facts.name, "memory_bytes": facts.total_memory, "count": torch.cuda.device_count()}


def check_gpu(
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Where gpu_check.md and gpu_check.json go.")] = Path(
        "saves/gpu_check"
    ),
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="Limit for all parts together.")] = 8.0,
    small: Annotated[
        bool, typer.Option("--small", help="Tiny models on the CPU: shows that the check itself works.")
    ] = False,
) -> None:
    """Check speed, memory, exactness, fp16, QLoRA and continuation on this machine's GPU."""

    def write(report: dict[str, Any]) -> None:
        write_json(output_dir / "gpu_check.json", report)
        write_text(output_dir / "gpu_check.md", write_report(report, "en") + "\n")

    with tempfile.TemporaryDirectory(prefix="sentifactory-gpu-check-") as name:
        report = run_check(Path(name), is_small=small, limit_s=minutes * 60, follow=write)
    print(write_report(report, "en"))


if __name__ == "__main__":
    run_script(check_gpu)
