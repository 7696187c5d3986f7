"""Measures `label --engine ray` over one and two servers, and over two of which one is slow, fails or dies.

The servers are stubs with a fixed time for a text (`stub_server`), so that the figures are those of the labelling and
not of a model. Stubs, clients and Ray share the processors of this machine: with a time far below a model's (some
100 ms for a small one on two cores) these would be measured. The time is that from the first to the last answer: the
start of Ray is not in it. Every row has to be there once, in order, with the label that the stub gives to its text;
what was answered twice, since a batch was asked again, is counted.

Example:
    python -m tools.service_bench.replicas
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.cli import run_script
from sentifactory.system.atomic import write_json, write_text
from sentifactory.system.formats import build_table
from sentifactory.system.hardware import describe_machine
from sentifactory.system.progress import say
from sentifactory.system.supervisor import list_descendants
from sentifactory.task.task import BINARY_SENTIMENT
from tools.docs.page_parts import name_machine
from tools.service_bench.labelling_kills import write_reviews
from tools.service_bench.scripted_engine import script_answer

SLOWER = 10
FAULT_AFTER = 0.25  # share of the rows that are answered when a fault begins
TITLES = {
    "en": {
        "one": "one server",
        "two": "two servers",
        "slow": "two, one of them {slower} times as slow",
        "fails": "two, one answers 500 for {fails_s} s",
        "server dies": "two, one dies for good",
        "replica dies": "two, Ray's process for one is killed",
    },
    "zh": {
        "one": "一个服务器",
        "two": "两个服务器",
        "slow": "两个，其中一个慢 {slower} 倍",
        "fails": "两个，其中一个连续 {fails_s} 秒返回 500",
        "server dies": "两个，其中一个不再恢复",
        "replica dies": "两个，Ray 的一个副本进程被杀",
    },
}
HEADERS = {
    "en": ["", "rows/s", "times one server", "texts of each server", "asked again", "rows out of in", "wrong"],
    "zh": ["", "行/秒", "与一个服务器之比", "各服务器的文本数", "重复请求", "输出行 / 输入行", "错误"],
}
CAPTIONS = {
    "en": "Stub servers that take {text_ms:.0f} ms for a text, {rows:,} rows, on {machine}; first to last answer.",
    "zh": "替身服务器，每条文本 {text_ms:.0f} 毫秒，{rows:,} 行，机器：{machine}；从第一个回答到最后一个回答计时。",
}
TEXTS = ("房间干净", "再也不来了", "一般")


@dataclass(frozen=True, slots=True)
class Stub:
    """A running stub server.

    Attributes:
        process: of the server.
        url: its address.
    """

    process: subprocess.Popen[str]
    url: str

    def behave(self, **changes: float) -> None:
        """Change its behaviour: `text_s`, `fails_s`."""
        import httpx

        httpx.post(f"{self.url}/behave", json=changes, trust_env=False).raise_for_status()

    def count(self) -> dict[str, Any]:
        """Return its counts; {} where it has died."""
        import httpx

        try:
            return dict(httpx.get(f"{self.url}/counts", trust_env=False).json())
        except httpx.TransportError:
            return {}


@contextmanager
def run_stub(text_s: float) -> Iterator[Stub]:
    """Run a stub server for the length of the block."""
    command = [sys.executable, "-m", "tools.service_bench.stub_server", str(text_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = process.stdout.readline() if process.stdout else ""
            yield Stub(process, f"http://127.0.0.1:{int(port)}")
        finally:
            process.kill()


Fault = Callable[[Sequence[Stub], int], None]


def kill_server(stubs: Sequence[Stub], labelling: int) -> None:
    """Kill the last server for good."""
    stubs[-1].process.kill()


def kill_replica(stubs: Sequence[Stub], labelling: int) -> None:
    """Kill the process of one of Ray's replicas."""
    replicas = [pid for pid in list_descendants(labelling) if b"ray::MapWorker" in _read_command(pid)]
    os.kill(replicas[-1], signal.SIGKILL)


def _read_command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def measure_labelling(
    folder: Path, n_rows: int, text_s: float, n_servers: int, *, slower: float = 1.0, fault: Fault | None = None
) -> dict[str, Any]:
    """Label rows over servers, and return seconds and counts.

    Args:
        folder: for input and output.
        n_rows: number of rows, all different.
        text_s: seconds of a server for a text.
        n_servers: number of servers, and of replicas.
        slower: how many times as long the last server takes.
        fault: done to the servers or to the labelling when `FAULT_AFTER` of the rows are answered.

    Raises:
        RuntimeError: when the command fails.
    """
    source, out = folder / "in.csv", folder / "out.csv"
    out.unlink(missing_ok=True)
    write_reviews(source, TEXTS, n_rows)
    with ExitStack() as stack, (folder / "log").open("w+b") as log:
        stubs = [stack.enter_context(run_stub(text_s)) for _ in range(n_servers)]
        stubs[-1].behave(text_s=text_s * slower)
        command = [sys.executable, "-m", "sentifactory.cli", "label", str(source), str(out), "--model", "base"]
        command += ["--engine", "ray", *(word for stub in stubs for word in ("--vllm_url", f"{stub.url}/classify"))]
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log))
        last: dict[int, dict[str, Any]] = {}
        while process.poll() is None:
            time.sleep(0.5)
            last.update({place: found for place, stub in enumerate(stubs) if (found := stub.count())})
            if fault is not None and sum(one["texts"] for one in last.values()) > FAULT_AFTER * n_rows:
                fault(stubs, process.pid)
                fault = None
        last.update({place: found for place, stub in enumerate(stubs) if (found := stub.count())})
        if process.returncode != 0:
            log.seek(0)
            raise RuntimeError(f"labelling ended with {process.returncode}: {log.read()[-2000:].decode()}")
    times = [one for counts in last.values() for one in counts["from_to"]]
    seconds = max(times) - min(times)
    return {
        "servers": n_servers,
        "seconds": round(seconds, 1),
        "rows_per_s": round(n_rows / seconds, 1),
        "texts_of_each": [counts["texts"] for _, counts in sorted(last.items())],
        "asked_again": sum(counts["texts"] + counts["again"] for counts in last.values()) - n_rows,
        **check_rows(source, out),
    }


def check_rows(source: Path, out: Path) -> dict[str, int]:
    """Return the number of rows in and out, and of those that are at another place or have another label."""
    with source.open(encoding="utf-8", newline="") as before, out.open(encoding="utf-8", newline="") as after:
        rows, labelled = [*csv.DictReader(before)], [*csv.DictReader(after)]
    names = BINARY_SENTIMENT.labels
    wrong = sum(
        (row["id"], names[script_answer(row["text"], len(names)).label or 0]) != (found["id"], found["label"])
        for row, found in zip(rows, labelled, strict=False)
    )
    return {"rows_in": len(rows), "rows_out": len(labelled), "rows_wrong": wrong}


def measure_all(folder: Path, n_rows: int, text_s: float, fails_s: float) -> dict[str, Any]:
    """Return the figures of every case by its title."""

    def fail(stubs: Sequence[Stub], labelling: int) -> None:
        stubs[-1].behave(fails_s=fails_s)

    cases: dict[str, dict[str, Any]] = {
        "one": {"n_servers": 1},
        "two": {"n_servers": 2},
        "slow": {"n_servers": 2, "slower": SLOWER},
        "fails": {"n_servers": 2, "fault": fail},
        "server dies": {"n_servers": 2, "fault": kill_server},
        "replica dies": {"n_servers": 2, "fault": kill_replica},
    }
    found = {}
    for key, case in cases.items():
        say(f"Labelling over replicas: {key}")
        found[key] = measure_labelling(folder, n_rows, text_s, **case)
    return {"rows": n_rows, "text_s": text_s, "fails_s": fails_s, "cases": found, "machine": describe_machine()}


def write_replicas_table(report: Mapping[str, Any], language: str) -> str:
    """Return the table in a language, `en` or `zh`, as Markdown."""
    rows = [HEADERS[language]]
    alone = report["cases"]["one"]["rows_per_s"]
    for key, one in report["cases"].items():
        title = TITLES[language][key].format(slower=SLOWER, fails_s=f"{report['fails_s']:.0f}")
        rows.append(
            [
                title,
                f"{one['rows_per_s']:.1f}",
                f"{one['rows_per_s'] / alone:.2f}",
                " + ".join(f"{n:,}" for n in one["texts_of_each"]),
                f"{one['asked_again']:,}",
                f"{one['rows_out']:,} / {one['rows_in']:,}",
                str(one["rows_wrong"]),
            ]
        )
    caption = CAPTIONS[language].format(
        text_ms=report["text_s"] * 1000, rows=report["rows"], machine=name_machine(report["machine"])
    )
    return "\n".join([*build_table(rows), "", caption])


def run(
    n_rows: Annotated[int, typer.Option("--rows", min=10, help="Rows to label in each case.")] = 2400,
    text_s: Annotated[float, typer.Option("--text_s", help="Seconds of a server for a text.")] = 0.05,
    fails_s: Annotated[float, typer.Option("--fails_s", help="Seconds for which a failing server fails.")] = 60.0,
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Folder of the report.")] = Path("saves/bench"),
) -> None:
    """Measure labelling over replicas, with faults: replicas.json and replicas.md."""
    with tempfile.TemporaryDirectory() as folder:
        report = measure_all(Path(folder), n_rows, text_s, fails_s)
    write_json(output_dir / "replicas.json", report)
    write_text(output_dir / "replicas.md", write_replicas_table(report, "en") + "\n")
    typer.echo(write_replicas_table(report, "en"))


if __name__ == "__main__":
    run_script(run)
