"""The bench on the smallest scale: real processes, loads, kills, and its page."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from live_service import build_service, serve_live
from tiny_models import build_tiny_bert

from sentifactory.errors import ConfigError
from sentifactory.models.pooled_classifier import register_pooled_classes
from sentifactory.serving.service_settings import Limits
from sentifactory.task.task import BINARY_SENTIMENT
from tools.service_bench import service_bench
from tools.service_bench.labelling_kills import compare_rows
from tools.service_bench.load_client import FAILED, Connection, load_closed, load_open, post_once, summarise_latencies
from tools.service_bench.scripted_engine import ScriptedEngine
from tools.service_bench.service_bench import BenchSizes, ServeBench, run_bench
from tools.service_bench.service_processes import BenchModels, run_service_process


@pytest.fixture
def models(tmp_path: Path) -> BenchModels:
    reviews = tmp_path / "train.csv"
    rows = [f"{word}{number},{label}" for number in range(20) for word, label in (("很好", 1), ("很差", 0))]
    reviews.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return BenchModels(None, None, None, str(reviews))


def test_loads_count_every_request() -> None:
    service = build_service(ScriptedEngine(BINARY_SENTIMENT, batch_s=0.02), Limits(queue_items=8, list_items=8))
    with serve_live(service) as address:
        closed = asyncio.run(load_closed(address, ["很好"], 2, 0.5)).summarise()
        opened = asyncio.run(load_open(address, ["很好"], 400, 0.5)).summarise()
    assert set(closed["statuses"]) == {"200"}
    assert closed["latency_ms"]["p50"] >= 20
    assert set(opened["statuses"]) == {"200", "429"}
    assert opened["requests"] == 200 == sum(opened["statuses"].values())
    gone = asyncio.run(load_open(address, ["很好"], 10, 0.2)).summarise()
    assert gone["statuses"] == {str(FAILED): 2}


def test_a_connection_that_was_given_up_is_opened_anew_and_a_half_answer_is_a_failure() -> None:
    n_connections = 0

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal n_connections
        n_connections += 1
        await reader.readuntil(b"}")
        # The third connection breaks off in the middle of an answer.
        length = 9 if n_connections == 3 else 2
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{{}}".encode())
        await writer.drain()
        writer.close()

    async def ask() -> list[int]:
        server = await asyncio.start_server(answer_once, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        connection = Connection(f"http://{host}:{port}")
        statuses = []
        for _ in range(3):
            statuses.append(await connection.post("很好"))
            await asyncio.sleep(0.05)
        server.close()
        return statuses

    assert asyncio.run(ask()) == [200, 200, FAILED]
    assert n_connections == 3


def test_latencies_are_in_milliseconds() -> None:
    assert summarise_latencies([]) is None
    assert summarise_latencies([0.004, 0.001, 0.005, 0.002, 0.003]) == {"p50": 3.0, "p95": 4.8, "p99": 5.0}


@pytest.mark.slow
def test_the_plain_service_answers_with_an_encoder_of_our_own_type(models: BenchModels, tmp_path: Path) -> None:
    """Whose type transformers does not know, in a process that has not met it before."""
    from transformers import AutoModel, AutoTokenizer

    config_class, model_class = register_pooled_classes()
    (tmp_path / "trunk").mkdir()
    trunk = build_tiny_bert(tmp_path / "trunk")
    model = AutoModel.from_pretrained(trunk)
    labels = dict(enumerate(BINARY_SENTIMENT.labels))
    config = config_class(trunk=model.config.to_dict(), pooling="mean", id2label=labels)
    encoder = tmp_path / "encoder"
    model_class(config, model).save_pretrained(encoder)
    AutoTokenizer.from_pretrained(trunk).save_pretrained(encoder)
    services = BenchModels(None, str(encoder), None, models.reviews).list_services()
    with run_service_process(services["plain encoder"]) as service:
        assert asyncio.run(post_once(service.address, "很好")) == 200


@pytest.mark.slow
def test_the_bench_measures_a_real_service_and_kills_a_labelling(
    models: BenchModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_bench, "WARM_UP_S", 0.2)
    sizes = BenchSizes(seconds=1.0, overload_s=1.0, clients=4, stub_rows=30_000, label_kills=1)
    page = run_bench(ServeBench(models, (), sizes), ["load", "overload", "label"], tmp_path / "bench")
    report = json.loads((tmp_path / "bench" / "serve.json").read_text(encoding="utf-8"))
    assert report["load"]["tfidf"]["closed"]["per_s"] > 0
    assert set(report["overload"]["tfidf"]["statuses"]) <= {"200", "429"}
    stub = report["label"]["stub"]
    assert (stub["rows_in"], stub["rows_out"], stub["rows_wrong"]) == (30_000, 30_000, 0)
    assert page == (tmp_path / "bench" / "serve.md").read_text(encoding="utf-8")
    assert "| tfidf | closed | 4 clients |" in page


def test_lost_repeated_and_moved_rows_are_found(tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("id,text\n0,a\n1,b\n2,c\n")
    for rows, wrong in (
        ("0,positive\n1,negative\n2,positive\n", 0),
        ("0,positive\n2,positive\n", 2),
        ("0,?\n1,negative\n2,positive\n", 1),
    ):
        out.write_text("id,label\n" + rows)
        assert compare_rows(source, out)["rows_wrong"] == wrong


def test_unknown_parts_and_services_are_refused(models: BenchModels, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model for these services: onnx"):
        ServeBench(models, ["tfidf", "onnx"], BenchSizes())
    with pytest.raises(ConfigError, match="no part speed"):
        run_bench(ServeBench(models, (), BenchSizes()), ["speed"], tmp_path)
