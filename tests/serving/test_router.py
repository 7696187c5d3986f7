"""`deploy/nginx.conf` in a real nginx: a busy replica is not a dead one, and a dead one is left out."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from sentifactory.engines.vllm.server_process import choose_port

CONFIG = Path(__file__).parents[2] / "deploy" / "nginx.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="there is no nginx here")
N_REPLICAS = 3


class Replica(ThreadingHTTPServer):
    """Answers with one status, and remembers how often it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.status = 200
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.bodies: list[bytes] = []
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def end(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.may_answer.wait(30)
        self.send_response(self.server.status)
        if self.server.status == 429:
            self.send_header("Retry-After", "7")
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def run_nginx(folder: Path, ports: list[int]) -> Iterator[str]:
    """Run the configuration as it stands, without TLS and with other addresses; gives its address."""
    text = re.sub(r"\n *ssl_[^\n]*", "", CONFIG.read_text(encoding="utf-8"))
    own = choose_port()
    text = text.replace("listen 443 ssl;", f"listen 127.0.0.1:{own};")
    for place, port in zip(("127.0.0.1:8000", "10.0.0.7:8000", "10.0.0.8:8000"), ports, strict=True):
        assert text.count(f"server {place} ") == 2, "in both lists"
        text = text.replace(f"server {place} ", f"server 127.0.0.1:{port} ")
    folders = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
    whole += f"events {{ worker_connections 1024; }}\nhttp {{ access_log off;\n{folders}\n{text}\n}}\n"
    (folder / "nginx.conf").write_text(whole, encoding="utf-8")
    command = [str(NGINX), "-p", str(folder), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]
    subprocess.run([*command, "-t"], check=True, capture_output=True, env={**os.environ})
    process = subprocess.Popen(command)
    try:
        address = f"http://127.0.0.1:{own}"
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                httpx.get(f"{address}/metrics", trust_env=False)
                break
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def routed(tmp_path: Path) -> Iterator[tuple[str, list[Replica]]]:
    with ExitStack() as stack:
        replicas = [Replica() for _ in range(N_REPLICAS)]
        for replica in replicas:
            stack.callback(replica.end)
        yield stack.enter_context(run_nginx(tmp_path, [one.server_address[1] for one in replicas])), replicas


def ask(address: str, number: int) -> list[httpx.Response]:
    with httpx.Client(base_url=address, trust_env=False) as client:
        return [client.post("/predict", content=f"第{count}条".encode()) for count in range(number)]


def test_a_busy_replica_gets_the_next_request_all_the_same(routed: tuple[str, list[Replica]]) -> None:
    address, replicas = routed
    replicas[0].status = replicas[1].status = 429
    assert {answer.status_code for answer in ask(address, 60)} == {200}, "somebody is free"
    assert replicas[2].bodies.count("第7条".encode()) == 1, "with its body, and not twice"
    before = len(replicas[0].bodies)
    assert before > 5, "it was not taken for dead"
    replicas[0].status = 200
    ask(address, 30)
    assert len(replicas[0].bodies) > before


def test_when_all_are_busy_callers_are_told_so_until_one_is_free(routed: tuple[str, list[Replica]]) -> None:
    address, replicas = routed
    for replica in replicas:
        replica.status = 429
    for answer in ask(address, 40):
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    replicas[1].status = 200
    assert {answer.status_code for answer in ask(address, 10)} == {200}, "at once"


def test_a_replica_that_is_not_ready_or_gone_is_left_out(routed: tuple[str, list[Replica]]) -> None:
    address, replicas = routed
    replicas[0].status = 503
    replicas[1].end()
    assert {answer.status_code for answer in ask(address, 60)} == {200}
    assert len(replicas[0].bodies) < 10


def test_figures_are_not_told_outside(routed: tuple[str, list[Replica]]) -> None:
    assert httpx.get(f"{routed[0]}/metrics", trust_env=False).status_code == 404


def test_one_address_has_so_many_requests_under_way_and_no_more(routed: tuple[str, list[Replica]]) -> None:
    address, replicas = routed
    (most,) = map(int, re.findall(r"limit_conn sentifactory_callers (\d+);", CONFIG.read_text(encoding="utf-8")))
    for replica in replicas:
        replica.may_answer.clear()
    place = ("127.0.0.1", int(address.rpartition(":")[2]))
    with ExitStack() as stack:
        stack.callback(lambda: [replica.may_answer.set() for replica in replicas])
        lines = [stack.enter_context(socket.create_connection(place, timeout=10)) for _ in range(most + 5)]
        for line in lines:
            line.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
        answers = [line.recv(12) for line in lines[most:]]
        assert answers == [b"HTTP/1.1 503"] * 5
        assert sum(len(replica.bodies) for replica in replicas) <= most
        for replica in replicas:
            replica.may_answer.set()
        assert {line.recv(12) for line in lines[:most]} == {b"HTTP/1.1 200"}
