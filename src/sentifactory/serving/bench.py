"""`make bench-serve`: load, overload, faults, requests from the description, and labelling that is killed.

Each part writes its figures into serve.json as soon as it is through and the page serve.md anew, so that parts can be
run one by one. Everything runs on this machine over loopback; the load generator takes its share of the cores.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.atomic import write_json, write_text
from sentifactory.errors import ConfigError
from sentifactory.evaluation.provenance import describe_machine
from sentifactory.json_object import read_json_object
from sentifactory.progress import say
from sentifactory.serving.bench_faults import ask_hostile, disconnect_clients, end_in_flight, hang_vllm, kill_vllm
from sentifactory.serving.bench_labelling import bench_real, bench_stub
from sentifactory.serving.bench_services import BenchModels, read_texts_to_send, run_service_process
from sentifactory.serving.bench_tables import render_tables
from sentifactory.serving.load_client import load_closed, load_open

SENT_TEXTS = 4000
WARM_UP_S = 3.0
OPEN_SHARE = 0.5  # of the closed loop's throughput
OVERLOAD = 4
MOST_SENT_PER_S = 1000.0  # what the load generator can send beside a service on few cores


@dataclass(frozen=True, slots=True)
class BenchSizes:
    """How much is measured.

    Attributes:
        seconds: of each load.
        overload_s: seconds of the overload.
        clients: of the closed loop.
        cases: requests made from the description.
        kills: how often vLLM is killed.
        stub_rows: rows labelled without a model.
        real_rows: rows labelled with a model.
        label_kills: how often a labelling is killed.
    """

    seconds: float = 30.0
    overload_s: float = 60.0
    clients: int = 32
    cases: int = 10_000
    kills: int = 20
    stub_rows: int = 1_000_000
    real_rows: int = 2000
    label_kills: int = 10


class ServeBench:
    """Measures part by part.

    Args:
        models: what is served.
        services: names of the services to measure; () for all that there are.
        sizes: how much is measured.
    """

    def __init__(self, models: BenchModels, services: Sequence[str], sizes: BenchSizes) -> None:
        self._models = models
        self._sizes = sizes
        known = models.list_services()
        if unknown := [name for name in services if name not in known]:
            raise ConfigError(
                f"There is no model for these services: {', '.join(unknown)}",
                where="--services",
                expected=", ".join(known),
            )
        self._commands = {name: known[name] for name in services or known}
        self._texts = read_texts_to_send(models.reviews, SENT_TEXTS)
        # vLLM keeps what it has computed: the second load of a service is of texts that the first has not sent.
        middle = (len(self._texts) + 1) // 2
        self._unsent = self._texts[middle:] + self._texts[:middle]
        self.parts: dict[str, Callable[[], dict[str, Any]]] = {
            "load": self._measure_load,
            "overload": self._measure_overload,
            "chaos": self._measure_faults,
            "schema": self._check_schema,
            "label": self._measure_labelling,
        }

    def _list_ours(self) -> dict[str, list[str]]:
        return {name: command for name, command in self._commands.items() if not name.startswith("plain")}

    def _measure_load(self) -> dict[str, Any]:
        found = {}
        for name, command in self._commands.items():
            say(f"Load: {name}")
            with run_service_process(command) as service:
                asyncio.run(load_closed(service.address, self._texts[::-1], 4, WARM_UP_S))
                closed = asyncio.run(
                    load_closed(service.address, self._texts, self._sizes.clients, self._sizes.seconds)
                ).summarise()
                pace = max(0.2, OPEN_SHARE * closed["per_s"])
                opened = asyncio.run(load_open(service.address, self._unsent, pace, self._sizes.seconds)).summarise()
            found[name] = {"clients": self._sizes.clients, "closed": closed, "open": {"sent_per_s": pace, **opened}}
        return found

    def _measure_overload(self) -> dict[str, Any]:
        found = {}
        for name, command in self._list_ours().items():
            say(f"Overload: {name}")
            with run_service_process(command) as service:
                closed = asyncio.run(
                    load_closed(service.address, self._texts, self._sizes.clients, self._sizes.seconds / 2)
                ).summarise()
                pace = min(MOST_SENT_PER_S, OVERLOAD * max(0.5, closed["per_s"]))
                load = load_open(service.address, self._unsent, pace, self._sizes.overload_s)
                found[name] = {
                    "sent_per_s": round(pace, 1),
                    "sent_s": self._sizes.overload_s,
                    **asyncio.run(load).summarise(),
                }
        return found

    def _measure_faults(self) -> dict[str, Any]:
        found = {}
        for name, command in self._list_ours().items():
            say(f"Faults: {name}")
            with run_service_process(command) as service:
                facts = {
                    "disconnects": asyncio.run(disconnect_clients(service, self._texts)),
                    "hostile": asyncio.run(ask_hostile(service, self._texts)),
                }
                if name == "vllm":
                    facts["hanging"] = asyncio.run(hang_vllm(service, self._texts))
                    facts["killed"] = asyncio.run(kill_vllm(service, self._texts, self._sizes.kills))
            facts["sigterm"] = asyncio.run(end_in_flight(command, self._texts))
            found[name] = facts
        return found

    def _check_schema(self) -> dict[str, Any]:
        from sentifactory.serving.schema_check import check_schema

        found = {}
        for name, command in list(self._list_ours().items())[:1]:  # all of them describe themselves alike
            say(f"Requests from the description: {name}")
            with run_service_process(command) as service:
                found[name] = check_schema(service.address, self._sizes.cases)
        return found

    def _measure_labelling(self) -> dict[str, Any]:
        sizes = self._sizes
        found: dict[str, Any] = {}
        with tempfile.TemporaryDirectory(prefix="sentifactory-bench-") as name:
            folder = Path(name)
            found["stub"] = bench_stub(folder, self._texts, sizes.stub_rows, sizes.label_kills)
            for kind, model in (("onnx", self._models.onnx), ("encoder", self._models.encoder)):
                if model and kind in self._commands:
                    words = ["--model", model, "--engine", kind]
                    found[kind] = bench_real(folder, self._texts, sizes.real_rows, sizes.label_kills, kind, words)
            if self._models.llm and "vllm" in self._commands:
                found["vllm"] = self._label_with_vllm(folder, self._models.llm)
        return found

    def _label_with_vllm(self, folder: Path, model: str) -> dict[str, Any]:
        # One server for all runs: it is the labelling that is killed.
        from sentifactory.engines.openai_client import KEY_VARIABLES
        from sentifactory.engines.vllm_process import VllmOptions, start_vllm

        server = start_vllm(model, "bench", VllmOptions())
        os.environ[KEY_VARIABLES[0]] = server.key  # for the commands that ask it
        try:
            words = ["--model", "bench", "--vllm_url", server.address]
            return bench_real(folder, self._texts, self._sizes.real_rows, self._sizes.label_kills, "vllm", words)
        finally:
            os.environ.pop(KEY_VARIABLES[0])
            server.process.close()


def run_bench(bench: ServeBench, parts: Sequence[str], output_dir: Path) -> str:
    """Measure the parts, write `serve.json` and `serve.md` after each, and return the page.

    Raises:
        ConfigError: when there is no such part.
    """
    unknown = [part for part in parts if part not in bench.parts]
    if unknown:
        raise ConfigError(f"There is no part {', '.join(unknown)}", where="--parts", expected=", ".join(bench.parts))
    path = output_dir / "serve.json"
    page = ""
    for part in parts or list(bench.parts):
        figures = bench.parts[part]()
        report = read_json_object(path) or {}
        report["machine"] = describe_machine()
        report[part] = {**report.get(part, {}), **figures}
        write_json(path, report)
        page = render_tables(report)
        write_text(output_dir / "serve.md", page)
    return page
