"""What a connection to the page may cost, and what is not cut: long answers, and files over a slow line."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from sentifactory.serving.http.server import bind_socket
from sentifactory.serving.service_settings import Access, Limits
from sentifactory.ui import launch, security_middleware
from sentifactory.ui.actions import PageActions
from sentifactory.ui.page_settings import PageAccess
from sentifactory.ui.workspace import open_workspace
from tools.reliability.attack_service import ask_queue

LIMITS = Limits(head_bytes=4096, head_fields=50, head_s=0.5, body_s=20.0, idle_s=0.5, connections=20)
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
LISTEN = b"GET /gradio_api/heartbeat/%d HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with bind_socket(Access(port=0)) as bound:
        port = bound.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "CONNECTION_LIMITS", LIMITS)
        patch.setattr(security_middleware, "BODY_LIMITS", Limits(body_s=0.5, body_bytes=1000))
        actions = PageActions(open_workspace(tmp_path_factory.mktemp("page") / "space"), (), ())
        page = launch.launch_page(actions, PageAccess(port=port), port)
    yield f"http://127.0.0.1:{port}"
    page.close(verbose=False)


def connect(address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=10)


def read_to_end(line: socket.socket) -> bytes:
    content = b""
    with contextlib.suppress(ConnectionError):
        while piece := line.recv(1 << 16):
            content += piece
    return content


def read_until(line: socket.socket, end: bytes) -> bytes:
    content = b""
    while end not in content:
        piece = line.recv(1 << 16)
        assert piece, content
        content += piece
    return content


def is_sound(address: str) -> bool:
    """Return whether somebody honest is shown the page, and told something by way of the queue."""
    ask_queue(int(address.rpartition(":")[2]))
    return httpx.get(address, trust_env=False, timeout=20).status_code == 200


@pytest.mark.slow
def test_a_head_without_end_is_refused_and_half_of_one_not_waited_for(address: str) -> None:
    with connect(address) as line:
        line.sendall(HEAD + b"X-Long: " + b"a" * 6000)
        assert read_to_end(line).startswith(b"HTTP/1.1 431 ")
    start = time.monotonic()
    with connect(address) as line, connect(address) as silent:
        line.sendall(HEAD)
        assert read_to_end(line).startswith(b"HTTP/1.1 408 ")
        read_to_end(silent)
    assert time.monotonic() - start < 5
    assert is_sound(address)


@pytest.mark.slow
@pytest.mark.parametrize("start", [b"", HEAD, LISTEN])
def test_those_who_wait_and_those_who_listen_keep_nobody_out(address: str, start: bytes) -> None:
    with contextlib.ExitStack() as stack:
        for at in range(3 * LIMITS.connections):
            line = stack.enter_context(connect(address))
            line.sendall(start % at if b"%d" in start else start)
            if start is LISTEN:
                assert line.recv(100).startswith(b"HTTP/1.1 200 ")
        assert is_sound(address)


@pytest.mark.slow
def test_a_body_that_does_not_come_is_not_waited_for(address: str) -> None:
    with connect(address) as line:
        line.sendall(b"POST /gradio_api/queue/join HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{")
        assert read_until(line, b"}").startswith(b"HTTP/1.1 408 ")
    assert httpx.post(f"{address}/gradio_api/queue/join", content=b" " * 1001, trust_env=False).status_code == 413


@pytest.mark.slow
def test_a_long_answer_and_a_slow_upload_outlast_every_other_limit(address: str) -> None:
    content = b"label,text\n" + b"1,good\n" * 100
    form = (
        b'--z\r\nContent-Disposition: form-data; name="files"; filename="a.csv"\r\n\r\n' + content + b"\r\n--z--\r\n"
    )
    with connect(address) as listener, connect(address) as line:
        listener.sendall(LISTEN % 1)
        read_until(listener, b"ALIVE")
        head = (
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=z\r\n"
        )
        line.sendall(head + b"Content-Length: %d\r\n\r\n" % len(form))
        for at in range(0, len(form), 100):
            line.sendall(form[at : at + 100])
            time.sleep(0.25)
        answer = read_until(line, b"]")
        assert answer.startswith(b"HTTP/1.1 200 ")
        name = json.loads(answer.partition(b"\r\n\r\n")[2])[0]
        assert httpx.get(f"{address}/gradio_api/file={name}", trust_env=False).content == content
        listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            assert listener.recv(1000), "it has been ended"


@pytest.mark.slow
def test_nothing_is_made_of_a_web_socket(address: str) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "a",
    }
    assert httpx.get(f"{address}/gradio_api/queue/join", headers=upgrade, trust_env=False).status_code == 404
