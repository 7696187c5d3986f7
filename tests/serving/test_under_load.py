"""Queues, batches, time-outs and clients that go away."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Sequence

import httpx
import pytest
from live_service import build_service, read_metric, serve_live

from sentifactory.engines.base import ClosingEngine, OnAnswer, report_answers
from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review
from sentifactory.serving.backends import batching
from sentifactory.serving.backends.backend import NotReadyError
from sentifactory.serving.backends.batching import BatchingBackend
from sentifactory.serving.http.admission import AdmissionQueue
from sentifactory.serving.http.problems import Problem
from sentifactory.serving.service_settings import Limits
from sentifactory.task.task import BINARY_SENTIMENT
from tools.service_bench.scripted_engine import ScriptedEngine, script_answer


class GatedEngine(ClosingEngine):
    """Answers when it is told to, and remembers what it was given at once."""

    name = "gated"

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = threading.Event()

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        self.batches.append([review.text for review in reviews])
        self.open.wait(10)
        if any("坏" in review.text for review in reviews):
            raise RuntimeError("broken")
        return report_answers([script_answer(review.text, 2) for review in reviews], on_answer)


def test_what_comes_in_meanwhile_goes_together_in_order_and_the_gone_are_left_out() -> None:
    async def run() -> list[list[str]]:
        engine = GatedEngine()
        backend = BatchingBackend(engine, batch_items=4, batch_wait_s=0.0)
        await backend.open()
        first = asyncio.create_task(backend.ask(Review("0")))
        while not engine.batches:
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(backend.ask(Review(str(number)))) for number in range(1, 8)]
        await asyncio.sleep(0)
        others[1].cancel()
        engine.open.set()
        answers = await asyncio.gather(first, *others, return_exceptions=True)
        await backend.close()
        for number, answer in enumerate(answers):
            if number == 2:
                assert isinstance(answer, asyncio.CancelledError)
            else:
                assert answer == script_answer(str(number), 2)
        with pytest.raises(EngineError):
            await backend.ask(Review("late"))
        return engine.batches

    assert asyncio.run(run()) == [["0"], ["1", "3", "4", "5"], ["6", "7"]]


def test_a_review_on_which_the_engine_breaks_spoils_no_other_answer() -> None:
    async def run() -> list[object]:
        engine = GatedEngine()
        engine.open.set()
        backend = BatchingBackend(engine, batch_items=8, batch_wait_s=0.02)
        await backend.open()
        answers = await asyncio.gather(*map(backend.ask, map(Review, ["a", "坏", "b"])), return_exceptions=True)
        await backend.close()
        return list(answers)

    first, broken, last = asyncio.run(run())
    assert (first, last) == (script_answer("a", 2), script_answer("b", 2))
    assert isinstance(broken, EngineError)


class PanicError(BaseException):
    """As PyO3 raises it where code in Rust panics."""


class PanickingEngine(ScriptedEngine):
    """Panics at some texts."""

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        if any("坏" in review.text for review in reviews):
            raise PanicError("called unwrap on None")
        return super().predict(reviews, on_answer)


def test_a_panic_of_the_engine_is_the_error_of_its_review_alone() -> None:
    async def run() -> list[object]:
        backend = BatchingBackend(PanickingEngine(BINARY_SENTIMENT), batch_items=8, batch_wait_s=0.0)
        await backend.open()
        asked = [asyncio.wait_for(backend.ask(Review(text)), 10) for text in ("坏", "好")]
        answers: list[object] = [*(await asyncio.gather(*asked, return_exceptions=True)), backend.is_ready()]
        await backend.close()
        return answers

    broken, answer, is_ready = asyncio.run(run())
    assert isinstance(broken, EngineError)
    assert answer == script_answer("好", 2)
    assert is_ready


def test_without_its_thread_the_engine_is_not_ready() -> None:
    async def run() -> None:
        backend = BatchingBackend(ScriptedEngine(BINARY_SENTIMENT), batch_items=8, batch_wait_s=0.0)
        await backend.open()
        assert backend.is_ready()
        assert backend._thread is not None
        await backend._thread.close()
        assert not backend.is_ready()
        with pytest.raises(NotReadyError):
            await backend.ask(Review("好"))
        await backend.close()

    asyncio.run(run())


def test_whoever_waits_when_it_is_closed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "CLOSE_WAIT_S", 0.01)

    async def run() -> list[object]:
        engine = GatedEngine()
        backend = BatchingBackend(engine, batch_items=1, batch_wait_s=0.0)
        await backend.open()
        asked = asyncio.gather(*map(backend.ask, map(Review, ["a", "b"])), return_exceptions=True)
        while not engine.batches:
            await asyncio.sleep(0.001)
        await backend.close()
        try:
            return list(await asyncio.wait_for(asked, 10))
        finally:
            engine.open.set()

    assert [type(answer) for answer in asyncio.run(run())] == [NotReadyError, NotReadyError]


def test_places_follow_the_pace_of_the_engine() -> None:
    now = 0.0
    queue = AdmissionQueue(100, max_wait_s=5.0, clock=lambda: now)

    def answer(seconds: float, number: int) -> None:
        nonlocal now
        with queue.admit(number) as tell:
            now += seconds
            tell(number)

    with queue.admit(15), queue.admit(10), pytest.raises(Problem) as full:  # a quarter while no pace is known
        queue.admit(1).__enter__()
    assert (full.value.code, full.value.retry_after_s) == ("queue_full", 1.0)
    with pytest.raises(Problem):
        queue.admit(101).__enter__()
    answer(2.0, 10)  # 5 texts a second
    now += 1000.0  # nobody asks: that says nothing about the pace
    with queue.admit(20):
        assert queue.estimate_wait_s(5) == pytest.approx(5.0)
        with queue.admit(5):
            pass
        with pytest.raises(Problem) as full:
            queue.admit(6).__enter__()
    assert full.value.retry_after_s == pytest.approx(5.2 / 2)
    assert queue.n_texts == 0
    with queue.admit(90):  # who comes first is let in, however slow it may be
        now += 11.0
    assert queue.estimate_wait_s(1) == 0.0  # nothing was answered for a whole window: nothing is known


def test_all_places_are_given_away_once_the_pace_is_known() -> None:
    now = 0.0
    queue = AdmissionQueue(100, max_wait_s=5.0, clock=lambda: now)
    with queue.admit(100) as tell:
        now = 1.0
        tell(100)
    with queue.admit(60), queue.admit(40), pytest.raises(Problem) as full:
        queue.admit(1).__enter__()
    assert full.value.retry_after_s == 1.0


def test_the_estimate_takes_no_longer_the_more_has_been_answered() -> None:
    now = 0.0
    queue = AdmissionQueue(100, max_wait_s=5.0, clock=lambda: now)
    with queue.admit(1) as tell:
        for _ in range(100_000):
            now += 1e-4
            tell(1)
        started_s = time.thread_time()
        waits_s = {queue.estimate_wait_s(9) for _ in range(200)}
        assert time.thread_time() - started_s < 0.1
    assert list(waits_s) == [pytest.approx(1e-3, rel=1e-3)]


def test_overload_is_answered_at_once_with_429_and_everybody_is_answered() -> None:
    limits = Limits(queue_items=32, list_items=8, batch_items=4, request_s=5.0)
    service = build_service(ScriptedEngine(BINARY_SENTIMENT, batch_s=0.05), limits)

    async def flood(address: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(
            base_url=address, trust_env=False, limits=httpx.Limits(max_connections=64)
        ) as client:
            posts = [client.post("/predict", json={"text": f"第{number}条"}) for number in range(64)]
            return await asyncio.gather(*posts)

    with serve_live(service) as address:
        answers = asyncio.run(flood(address))
        texts = [answer.json()["text"] for answer in answers if answer.status_code == 200]
        assert {answer.status_code for answer in answers} == {200, 429}
        assert len(texts) >= 8
        for number, answer in enumerate(answers):
            if answer.status_code == 200:
                assert answer.json()["text"] == f"第{number}条"
            else:
                assert int(answer.headers["retry-after"]) >= 1
        assert service.admission.n_texts == 0
        assert httpx.post(f"{address}/predict", json={"text": "又好了"}, trust_env=False).status_code == 200


def test_an_answer_that_takes_too_long_is_504_and_frees_its_place() -> None:
    engine = GatedEngine()
    limits = Limits(request_s=0.3, queue_items=4, list_items=4)
    service = build_service(engine, limits)
    with serve_live(service) as address:
        single = httpx.post(f"{address}/predict", json={"text": "慢"}, trust_env=False)
        whole = httpx.post(f"{address}/predict", json=["慢", "更慢"], trust_env=False)
        assert (single.status_code, whole.status_code) == (504, 504)
        assert single.json()["error"]["code"] == "too_slow"
        assert service.admission.n_texts == 0
        engine.open.set()
        assert httpx.post(f"{address}/predict", json={"text": "快"}, trust_env=False).status_code == 200


def test_clients_that_go_away_free_their_places() -> None:
    engine = GatedEngine()
    limits = Limits(queue_items=80, list_items=20, batch_items=4)
    service = build_service(engine, limits)
    body = '{"text": "走了"}'.encode()
    head = (
        "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with serve_live(service) as address:
        port = int(address.rpartition(":")[2])
        for _ in range(10):  # 200 clients by 20
            lines = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
            for line in lines:
                line.sendall(head.encode() + body)
            wait_until(lambda: service.admission.n_texts == 20)
            for line in lines:
                line.close()
            wait_until(lambda: service.admission.n_texts == 0)
        engine.open.set()
        assert httpx.post(f"{address}/predict", json={"text": "还在"}, trust_env=False).status_code == 200
        metrics = httpx.get(f"{address}/metrics", trust_env=False).text
    assert read_metric(metrics, "sentifactory_disconnects_total") == 200
    assert sum(len(batch) for batch in engine.batches) < 10, "nobody's texts are not asked"


def wait_until(holds: object, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.005)
