"""The service as a process: signals, a vLLM that dies or hangs under it, and no orphan left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fake_openai_server import Behaviour, serve_fake
from live_service import build_upstream_service, read_metric, serve_live
from process_family import Family, list_arguments

from sentifactory.engines.vllm.server_process import HOST
from sentifactory.serving.backends import upstream
from sentifactory.serving.backends.upstream import UpstreamBackend, link_to_address
from sentifactory.serving.service_settings import Limits
from sentifactory.task.task import BINARY_SENTIMENT

pytestmark = pytest.mark.slow

DRIVER = Path(__file__).with_name("serve_driver.py")


@pytest.fixture
def start_service() -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Start the driver; gives the process and the address."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, str(DRIVER), *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
        started.append(process)
        return process, f"http://{HOST}:{process.stdout.readline().strip()}"

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def ask(address: str, text: str = "很好") -> httpx.Response:
    return httpx.post(f"{address}/predict", json={"text": text}, trust_env=False, timeout=30)


def wait_for_status(address: str, status: int, within_s: float = 30.0) -> httpx.Response:
    deadline = time.monotonic() + within_s
    while (answer := ask(address)).status_code != status:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)
    return answer


def test_sigterm_answers_what_is_there_and_refuses_what_comes(start_service) -> None:
    process, address = start_service("1.0")
    with ThreadPoolExecutor(10) as pool:
        answers = [pool.submit(ask, address, f"第{number}条") for number in range(10)]
        deadline = time.monotonic() + 20
        while read_metric(httpx.get(f"{address}/metrics", trust_env=False).text, "sentifactory_queue_texts") < 10:
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGTERM)
        refused = False
        while not refused:
            try:
                httpx.get(f"{address}/health", trust_env=False)
            except httpx.TransportError:
                refused = True
        for number, answer in enumerate(answers):
            assert answer.result().status_code == 200
            assert answer.result().json()["text"] == f"第{number}条"
    assert process.wait(20) == 0
    assert process.stdout.readline() == "in order\n"


def test_a_killed_vllm_is_started_again_and_the_service_recovers(
    start_service, fake_vllm: Callable[..., None], model_folder: Path, family: Family
) -> None:
    process, address = start_service("0", str(model_folder))
    first = ask(address)
    assert first.status_code == 200
    for _ in range(3):
        server = family.find("api_server", 20)
        servers = [
            one for one, words in list_arguments(family.list_alive()) if "vllm.entrypoints.openai.api_server" in words
        ]
        servers[-1].kill()
        error = wait_for_status(address, 503)
        assert error.json()["error"]["code"] == "not_ready"
        assert "retry-after" in error.headers
        assert httpx.get(f"{address}/health", trust_env=False).status_code == 200, "it lives all the time"
        again = wait_for_status(address, 200)
        assert again.json()["probabilities"] == first.json()["probabilities"]
        assert server is not None
    metrics = httpx.get(f"{address}/metrics", trust_env=False).text
    assert read_metric(metrics, "sentifactory_ready") == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    family.wait_for(0, 10)


def test_a_killed_service_leaves_no_vllm(start_service, fake_vllm, model_folder: Path, family: Family) -> None:
    process, address = start_service("0", str(model_folder))
    assert ask(address).status_code == 200
    assert len(family.list_alive()) > 2
    process.kill()
    process.wait()
    family.wait_for(0, 30)


def test_a_vllm_that_starts_when_the_service_is_ended_goes_as_well(
    fake_vllm, model_folder: Path, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_vllm(start_delay_s=0.0)
    from sentifactory.engines.vllm.start_vllm import VllmOptions

    open_link = upstream.link_to_process(str(model_folder), "base", BINARY_SENTIMENT, VllmOptions(), 4, 5.0)
    backend = UpstreamBackend(open_link, first_pause_s=0.05)
    service = build_upstream_service(backend, Limits())
    with serve_live(service) as address:
        assert ask(address).status_code == 200
        fake_vllm(start_delay_s=3600.0)
        servers = [
            one for one, words in list_arguments(family.list_alive()) if "vllm.entrypoints.openai.api_server" in words
        ]
        servers[-1].kill()
        wait_for_status(address, 503)
        family.find("api_server", 20)
    family.wait_for(0, 20)


def test_a_slow_a_refusing_and_a_hanging_upstream(
    fake: tuple[Behaviour, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "PROBE_EVERY_S", 0.1)
    behaviour, origin = fake
    limits = Limits(request_s=0.5)
    restarts: list[int] = []
    backend = UpstreamBackend(
        link_to_address(origin, None, BINARY_SENTIMENT, 8, limits.request_s),
        on_restart=lambda: restarts.append(1),
        first_pause_s=0.05,
    )
    with serve_live(build_upstream_service(backend, limits)) as address:
        assert ask(address).status_code == 200
        behaviour.answer_delay_s = 1.0
        assert ask(address).status_code == 504
        behaviour.answer_delay_s = 0.0
        assert ask(address).status_code == 200
        behaviour.always_status = 500
        error = ask(address)
        assert error.status_code == 503
        assert origin not in error.text
        assert "127.0.0.1" not in error.text
        behaviour.always_status = 0
        wait_for_status(address, 200)
        too_long = ask(address, "长" * 1500)
        assert (too_long.status_code, too_long.json()["error"]["code"]) == (413, "text_too_long")
        assert restarts == [], "a server that lives is not given up"


def test_a_text_whose_answer_cannot_be_scored_gets_no_label() -> None:
    behaviour = Behaviour(kind="ollama", constraint="response_format", lines_for="差", chat_logprobs="before")
    with serve_fake(behaviour) as origin:
        backend = UpstreamBackend(link_to_address(origin, None, BINARY_SENTIMENT, 8, 5.0))
        with serve_live(build_upstream_service(backend, Limits())) as address:
            answer = ask(address, "太差")
            assert (answer.status_code, answer.json()["error"]["code"]) == (422, "no_label")
            assert ask(address, "很好").status_code == 200


def test_a_server_that_goes_and_comes_back_at_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    from fake_openai_server import QuietServer, make_handler

    with serve_fake(Behaviour()) as origin:
        backend = UpstreamBackend(link_to_address(origin, None, BINARY_SENTIMENT, 8, 5.0), first_pause_s=0.05)
        port = int(origin.rpartition(":")[2])
        stack = serve_live(build_upstream_service(backend, Limits()))
        address = stack.__enter__()
        first = ask(address).json()["label"]
    try:
        wait_for_status(address, 503)
        server = QuietServer(("127.0.0.1", port), make_handler(Behaviour()))
        import threading

        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            assert wait_for_status(address, 200).json()["label"] == first
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
    finally:
        stack.__exit__(None, None, None)
