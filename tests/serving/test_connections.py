"""What a connection may cost: heads, times, numbers and memory; each attack is bounded and on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from live_service import KEY, build_service, read_metric, serve_live
from test_under_load import GatedEngine, wait_until

from sentifactory.engines.base import Engine
from sentifactory.serving.http.connections import MAX_PIPELINED, choose_backlog, choose_max_connections
from sentifactory.serving.http.rate_limited_log import RateLimitedLog
from sentifactory.serving.service_settings import Access, Limits
from sentifactory.task.task import BINARY_SENTIMENT
from tools.service_bench.scripted_engine import ScriptedEngine

DRIVER = Path(__file__).with_name("serve_driver.py")
LIMITS = Limits(head_bytes=4096, head_fields=20, head_s=0.4, body_s=0.4, idle_s=0.4, send_s=0.5, connections=20)
HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
ENOUGH = 8 << 20  # bytes, far more than any limit here and any buffer of the system


@contextlib.contextmanager
def serve(engine: Engine | None = None, limits: Limits = LIMITS) -> Iterator[tuple[str, int]]:
    service = build_service(engine or ScriptedEngine(BINARY_SENTIMENT), limits)
    with serve_live(service) as address:
        yield address, int(address.rpartition(":")[2])


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def read_to_end(line: socket.socket) -> bytes:
    """Return all that comes until the service ends the connection, in whatever way."""
    content = b""
    with contextlib.suppress(ConnectionError):
        while piece := line.recv(1 << 16):
            content += piece
    return content


def pour(line: socket.socket, start: bytes, piece: bytes) -> int:
    """Send a start and then one piece again and again until the service refuses; return the bytes it has taken."""
    n_sent = 0
    with contextlib.suppress(ConnectionError, TimeoutError):
        line.sendall(start)
        line.settimeout(5)
        while n_sent < ENOUGH:
            line.sendall(piece)
            n_sent += len(piece)
    return n_sent


def is_sound(address: str) -> bool:
    """Return whether somebody honest is answered."""
    health = httpx.get(f"{address}/health", trust_env=False, timeout=10)
    answer = httpx.post(f"{address}/predict", json={"text": "很好"}, trust_env=False, timeout=10)
    return (health.status_code, answer.status_code) == (200, 200)


def read_ended(address: str, reason: str) -> float:
    metrics = httpx.get(f"{address}/metrics", trust_env=False).text
    name = f'sentifactory_ended_connections_total{{reason="{reason}"}}'
    return read_metric(metrics, name) if name in metrics else 0.0


@pytest.mark.parametrize(
    ("start", "piece", "n_most"),
    [
        (HEAD, b"X-A: " + b"b" * 995, 5),
        (HEAD, b"a: b\r\n", 25),
        (HEAD + b"X-Long: ", b"c" * 1000, 1),
        (b"GET /", b"d" * 1000, 1),
        (b"", b"\r\n" * 500, 1),
    ],
    ids=["large lines", "many lines", "one line", "address", "blank lines"],
)
def test_a_head_without_end_is_refused(start: bytes, piece: bytes, n_most: int) -> None:
    with serve(limits=Limits(head_bytes=4096, head_fields=20)) as (address, port):
        with connect(port) as line:
            lines = piece + b"\r\n" if piece.startswith(b"X-A") else piece
            line.sendall(start + lines * max(n_most, 6))
            answer = read_to_end(line)
            assert answer.startswith(b"HTTP/1.1 431 "), answer
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "head_too_large"
        with connect(port) as line:
            assert pour(line, start, lines * 60) < ENOUGH
        assert read_ended(address, "head_too_large") == 2
        assert is_sound(address)


def test_a_head_just_within_the_limits_is_taken() -> None:
    with serve(limits=Limits(head_bytes=4096, head_fields=20)) as (_, port), connect(port) as line:
        line.sendall(HEAD + b"X-A: 1\r\n" * 17 + b"X-B: " + b"b" * 3900 + b"\r\nConnection: close\r\n\r\n")
        assert read_to_end(line).startswith(b"HTTP/1.1 200 ")


def test_a_trailer_without_end_is_refused() -> None:
    with serve(limits=Limits(head_bytes=4096, head_fields=20)) as (address, port):
        for piece in (b"X-A: b\r\n" * 100, b"c" * 1000):
            with connect(port) as line:
                assert pour(line, POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-T: ", piece) < ENOUGH
        assert read_ended(address, "head_too_large") == 2
        assert is_sound(address)


def test_whoever_says_nothing_or_half_of_a_head_is_not_waited_for() -> None:
    with serve() as (address, port), connect(port) as silent, connect(port) as slow, connect(port) as dribbling:
        slow.sendall(HEAD)
        assert read_to_end(silent) == b""
        answer = read_to_end(slow)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"slow_head"' in answer
        start = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < start + 5:
                dribbling.sendall(b"\n" if time.monotonic() < start + 0.1 else b"X")
                time.sleep(0.05)
        assert time.monotonic() < start + 5
        assert is_sound(address)


def test_a_connection_without_another_request_is_closed() -> None:
    with serve() as (_, port), connect(port) as line:
        line.sendall(HEAD + b"\r\n")
        start = time.monotonic()
        assert read_to_end(line).startswith(b"HTTP/1.1 200 ")
        assert 0.3 < time.monotonic() - start < 5


@pytest.mark.parametrize("rest", [b"\r\n", b"G"], ids=["blank lines", "half a head"])
def test_what_follows_an_answer_is_timed_as_well(rest: bytes) -> None:
    with serve() as (_, port), connect(port) as line:
        line.sendall(HEAD + b"\r\n")
        assert line.recv(4096).startswith(b"HTTP/1.1 200 ")
        line.sendall(rest)
        start = time.monotonic()
        read_to_end(line)
        assert time.monotonic() - start < 5


def test_a_body_that_nobody_has_asked_for_is_not_waited_for() -> None:
    """The answer has been given: a byte now and then would keep the connection for ever."""
    with serve() as (address, port), connect(port) as line:
        line.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
        assert line.recv(4096).startswith(b"HTTP/1.1 200 ")
        start = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < start + 5:
                line.sendall(b" ")
                time.sleep(0.05)
        assert time.monotonic() < start + 5
        assert read_ended(address, "slow_body") == 1
        with connect(port) as polite:  # whoever sends it in time is answered again on the same connection
            polite.sendall(HEAD + b"Content-Length: 3\r\n\r\n")
            assert polite.recv(4096).startswith(b"HTTP/1.1 200 ")
            polite.sendall(b"abc" + HEAD + b"\r\n")
            assert polite.recv(4096).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "start",
    [b"", HEAD, POST + b"Content-Length: 9\r\n\r\n{", HEAD + b"\r\n"],
    ids=["silent", "half a head", "half a body", "idle"],
)
def test_connections_that_wait_for_their_client_keep_nobody_out(start: bytes, capfd) -> None:
    patient = Limits(connections=20, head_s=60.0, body_s=60.0, idle_s=60.0)
    with serve(limits=patient) as (address, port), contextlib.ExitStack() as stack:
        for _ in range(60):
            line = stack.enter_context(connect(port))
            line.sendall(start)
        for _ in range(5):
            assert is_sound(address)
        assert read_ended(address, "made_room") >= 40
        assert read_metric(httpx.get(f"{address}/metrics", trust_env=False).text, "sentifactory_connections") <= 20
    told = capfd.readouterr().err
    assert told.count("\n") == 1, "one line, however many"
    assert "20 places" in told


def test_only_when_all_are_being_answered_is_somebody_turned_away() -> None:
    engine = GatedEngine()
    limits = Limits(connections=4, queue_items=100, batch_items=1)
    body = '{"text": "慢"}'.encode()
    with serve(engine, limits) as (address, port), contextlib.ExitStack() as stack:
        busy = [stack.enter_context(connect(port)) for _ in range(4)]
        for line in busy:
            line.sendall(POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        wait_until(lambda: engine.batches)
        time.sleep(0.3)
        answer = httpx.get(f"{address}/health", trust_env=False)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_place")
        assert int(answer.headers["retry-after"]) > 0
        engine.open.set()
        assert all(read_to_end(line).startswith(b"HTTP/1.1 200 ") for line in busy), "none of them made room"
        assert is_sound(address)


def test_who_reads_no_answer_is_let_go() -> None:
    limits = Limits(send_s=0.5, list_items=400)
    body = json.dumps(["很好" * 500] * 400).encode()
    with serve(limits=limits) as (address, port), socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect(("127.0.0.1", port))
        # A second request without a pause: its answer would wait for the first one's to be read.
        for _ in range(4):
            with contextlib.suppress(ConnectionError):
                line.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        wait_until(lambda: read_ended(address, "slow_reader") == 1)
        assert is_sound(address)


@pytest.mark.slow
def test_what_is_not_read_by_all_together_is_limited() -> None:
    limits = Limits(send_s=60.0, list_items=400, queue_items=4000, held_bytes=2 << 20)
    body = json.dumps(["很好" * 500] * 400).encode()
    request = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with serve(limits=limits) as (address, port), contextlib.ExitStack() as stack:
        for _ in range(12):
            line = stack.enter_context(socket.socket())
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.connect(("127.0.0.1", port))
            line.settimeout(10)
            with contextlib.suppress(ConnectionError):
                line.sendall(request * 4)
        wait_until(lambda: read_ended(address, "slow_reader") > 0)
        assert is_sound(address)


def test_bodies_that_are_coming_in_share_a_limit() -> None:
    limits = Limits(body_bytes=1 << 20, held_bytes=1 << 20, body_s=20.0)
    with serve(limits=limits) as (address, port), contextlib.ExitStack() as stack:
        lines = [stack.enter_context(connect(port)) for _ in range(3)]
        for line in lines:
            with contextlib.suppress(ConnectionError):
                line.sendall(POST + b"Content-Length: 1000000\r\n\r\n" + b" " * 600_000)
        metric = 'sentifactory_problems_total{code="queue_full"}'
        wait_until(lambda: metric in httpx.get(f"{address}/metrics", trust_env=False).text)
        assert is_sound(address), "a body that is there at once is taken all the same"


def test_requests_behind_one_another_are_answered_in_order_and_limited(capfd) -> None:
    body = json.dumps(["好"] * 5).encode()
    first = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    engine = GatedEngine()
    with serve(engine, Limits()) as (address, port):
        with connect(port) as line:
            line.sendall(first + (HEAD + b"\r\n") * 3 + HEAD + b"Connection: close\r\n\r\n")
            engine.open.set()
            answer = read_to_end(line)
            assert answer.count(b"HTTP/1.1 200 ") == 5
            assert answer.index(b'"probabilities"') < answer.index(b'"live"')
        engine.open.clear()
        with connect(port) as line:
            line.sendall(first + (HEAD + b"\r\n") * (MAX_PIPELINED + 5))
            assert read_to_end(line) == b""
        engine.open.set()
        assert read_ended(address, "too_many_behind") == 1
        assert is_sound(address)
    told = capfd.readouterr().err
    assert "Traceback" not in told
    assert "ERROR" not in told


def test_what_is_no_http_is_told_so_and_logged_in_sum(capfd) -> None:
    with serve() as (address, port):
        for _ in range(10):
            with connect(port) as line:
                line.sendall(b"\x16\x03\x01 hello\r\n\r\n")
                answer = read_to_end(line)
                assert answer.startswith(b"HTTP/1.1 400 ")
                assert b'"no_http"' in answer
        upgrade = httpx.get(f"{address}/health", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
        assert upgrade.status_code == 200
        assert read_ended(address, "no_http") == 10
    assert capfd.readouterr().err.count("\n") == 1


def test_a_summed_log_tells_the_first_at_once_and_later_how_many(capfd) -> None:
    async def run() -> None:
        log = RateLimitedLog("Knocks", interval_s=0.1)
        for number in range(300):
            log.count(f"at {number % 150}")
        await asyncio.sleep(0.25)
        log.count("x" * 10_000)

    asyncio.run(run())
    first, second, third = capfd.readouterr().err.splitlines()
    assert first == "Knocks: 1 x at 0"
    numbers = [int(part.partition(" x ")[0]) for part in second.removeprefix("Knocks: ").split("; ")]
    assert sum(numbers) == 299
    assert len(numbers) <= 4
    assert len(third) < 200


def test_places_leave_descriptors_for_a_backlog_and_for_ourselves() -> None:
    for n_descriptors in (256, 1024, 20_000, 1 << 16):
        most = choose_max_connections(4096, n_descriptors)
        assert 0 < most <= 4096
        assert most + choose_backlog(n_descriptors) <= n_descriptors - 64
    assert choose_max_connections(100, 1 << 16) == 100


@contextlib.contextmanager
def start_driver(n_soft: int, n_hard: int) -> Iterator[tuple[psutil.Process, str, Path]]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (n_soft, n_hard))

    process = subprocess.Popen(
        [sys.executable, str(DRIVER), "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )
    try:
        yield process, f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_the_soft_limit_of_descriptors_is_raised_and_silent_ones_beyond_the_hard_one_keep_nobody_out() -> None:
    with start_driver(128, 400) as (process, address), contextlib.ExitStack() as stack:
        assert psutil.Process(process.pid).rlimit(psutil.RLIMIT_NOFILE) == (400, 400)
        for _ in range(500):
            stack.enter_context(connect(int(address.rpartition(":")[2])))
        for _ in range(5):
            assert is_sound(address)
        assert read_ended(address, "made_room") > 0


@pytest.mark.slow
def test_without_a_free_descriptor_it_says_so_lives_on_and_recovers() -> None:
    with start_driver(400, 400) as (process, address):
        assert is_sound(address)
        server = psutil.Process(process.pid)
        server.rlimit(psutil.RLIMIT_NOFILE, (3, 400))
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{address}/health", trust_env=False, timeout=2.0)
        assert "No descriptor is free" in process.stderr.readline()
        server.rlimit(psutil.RLIMIT_NOFILE, (400, 400))
        wait_until(lambda: is_sound(address))


@pytest.mark.slow
@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer wrong\r\n\r\n",
    ],
    ids=["answers that nobody reads", "wrong keys that are held back"],
)
def test_whoever_has_no_key_takes_no_place_from_those_who_have_it(request_line: bytes) -> None:
    service = build_service(ScriptedEngine(BINARY_SENTIMENT), Limits(connections=20))
    with serve_live(service, Access(key=KEY)) as address, contextlib.ExitStack() as stack:
        for _ in range(4):
            for _ in range(40):
                line = stack.enter_context(socket.socket())
                line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                line.connect(("127.0.0.1", int(address.rpartition(":")[2])))
                line.sendall(request_line * 8)
            time.sleep(0.1)
            headers = {"Authorization": f"Bearer {KEY}"}
            body = {"text": "很好"}
            answer = httpx.post(f"{address}/predict", json=body, headers=headers, trust_env=False, timeout=10)
            assert answer.status_code == 200


@pytest.mark.slow
def test_texts_that_are_refused_take_no_memory_while_others_wait() -> None:
    engine = GatedEngine()
    texts = ["好", "a" * 4_000_000 + "😀"]  # four bytes a character, once it is read
    body = json.dumps(texts, ensure_ascii=False).encode()
    process = psutil.Process()
    with serve(engine, Limits(body_s=300, request_s=300)) as (_, port), contextlib.ExitStack() as stack:
        stack.callback(engine.open.set)
        before = process.memory_info().rss
        lines = [stack.enter_context(connect(port)) for _ in range(30)]
        for line in lines:
            line.sendall(POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        wait_until(lambda: len(engine.batches) > 0)
        time.sleep(0.5)
        # Bodies that are still being read take memory for a moment; what waits for an answer would keep it.
        wait_until(lambda: process.memory_info().rss - before < 200 << 20)
        engine.open.set()
        for line in lines:
            answers = json.loads(read_to_end(line).partition(b"\r\n\r\n")[2])
            assert (answers[0]["text"], answers[1]["error"]["code"]) == ("好", "text_too_long")
