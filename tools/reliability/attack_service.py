"""Attacks on the connections of `sentifactory serve` or `sentifactory ui`, bounded and on loopback alone.

Purpose:       do honest questions go on being answered, and how much memory does the server take meanwhile?
Prerequisites: the train environment; 6,000 descriptors for this process (`ulimit -Hn`).
Command:       .venv/bin/python -m tools.reliability.attack_service [--page] [--against OTHER/src]
Output:        a table on stdout, one line an attack; with --against one column for each of the two versions.

Each attack gets a service of its own over TF-IDF, or a page without models, with 1,024 descriptors and 6 GiB of
address space.
Every attack ends after `--seconds` or when it has sent its bytes, whichever comes first.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import http.client
import json
import os
import re
import resource
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

HOST = "127.0.0.1"
N_SILENT = 5000
HEADER_BYTES = 1_000_000_000
N_FLOOD = 8
DESCRIPTORS = 1024
EXTRA_MEMORY = 6 << 30
ASK_EVERY_S = 0.2
ASK_TIMEOUT_S = 5.0
_PORT = re.compile(r"http://[^:/]+:(\d+)")
_LINE = b"X-" + b"a" * 50 + b": " + b"b" * 944 + b"\r\n"  # 1,000 bytes
_HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
_UPLOAD = b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=z\r\n"
_FORM = b'--z\r\nContent-Disposition: form-data; name="files"; filename="a.csv"\r\n\r\n'
_JOIN = b"POST /gradio_api/queue/join HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_POST = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@dataclass
class Service:
    """A running service and what it has written."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    def read_memory_mb(self, name: str) -> int:
        """Return VmRSS or VmHWM in MB; 0 where it has ended."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
                if line.startswith(name + ":"):
                    return int(line.split()[1]) // 1000
        return 0


@dataclass
class Answers:
    """What somebody with honest questions was told during an attack."""

    seconds: list[float] = field(default_factory=list)
    busy: int = 0
    failures: int = 0

    def describe(self) -> str:
        """Return the share that was answered, and the longest time an answer took."""
        n_asked = len(self.seconds) + self.busy + self.failures
        slowest = f", slowest {max(self.seconds):.2f} s" if self.seconds else ""
        busy = f", {self.busy} told that it is busy" if self.busy else ""
        return f"{len(self.seconds)} of {n_asked}{slowest}{busy}"


@contextlib.contextmanager
def start_service(src: Path, folder: Path, *, is_page: bool) -> Iterator[Service]:
    """Start `sentifactory serve` or `sentifactory ui` with 1,024 descriptors; give it when it answers."""
    reviews = folder / "reviews.csv"
    rows = [f"{word}{number}号房,{label}" for number in range(60) for word, label in (("很好", 1), ("太差", 0))]
    reviews.write_text("\n".join(["review,label", *rows]), encoding="utf-8")
    log = folder / "service.log"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        resource.setrlimit(resource.RLIMIT_AS, (EXTRA_MEMORY, EXTRA_MEMORY))

    environment = {**os.environ, "PYTHONPATH": str(src), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("SENTIFACTORY_SERVE_KEY", None)
    environment.pop("SENTIFACTORY_UI_PASSWORD", None)
    words = ["ui", "--workspace", str(folder / "space")] if is_page else ["serve", str(reviews), "--engine", "tfidf"]
    command = [sys.executable, "-m", "sentifactory.cli", *words, "--port", "0"]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment, preexec_fn=limit
        )
        try:
            for line in process.stdout or ():
                if found := _PORT.search(line):
                    yield Service(process, int(found[1]), log)
                    break
            else:
                raise SystemExit(f"The service has not started:\n{log.read_text()}")
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()


def ask(port: int, path: str, body: bytes | None = None) -> bytes:
    """Return an answer; each has a connection of its own."""
    request = urllib.request.Request(f"http://{HOST}:{port}{path}", body, {"Content-Type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=ASK_TIMEOUT_S) as got:
        return got.read()


def ask_queue(port: int) -> None:
    """Ask the page for its lists by way of its queue, as a browser does, and wait for the event that answers."""
    actions = json.loads(ask(port, "/config"))["dependencies"]
    action = next(one["id"] for one in actions if one["backend_fn"] and not one["inputs"] and one["outputs"])
    session = secrets.token_hex(8)
    question = {"data": [], "fn_index": action, "session_hash": session}
    ask(port, "/gradio_api/queue/join", json.dumps(question).encode())
    if b'"process_completed"' not in ask(port, f"/gradio_api/queue/data?session_hash={session}"):
        raise OSError("no answer came")


def note(question: Callable[[int], object], port: int, answers: Answers) -> None:
    """Ask once and note how it went."""
    start = time.monotonic()
    try:
        question(port)
    except urllib.error.HTTPError as error:
        answers.busy += error.code in (429, 503)
        answers.failures += error.code not in (429, 503)
    except (OSError, http.client.HTTPException):
        answers.failures += 1
    else:
        answers.seconds.append(time.monotonic() - start)


Questions = dict[str, Callable[[int], object]]
OF_SERVICE: Questions = {
    "/health": lambda port: ask(port, "/health"),
    "/predict": lambda port: ask(port, "/predict", '{"text": "很好"}'.encode()),
}
OF_PAGE: Questions = {"page": lambda port: ask(port, "/"), "queue": ask_queue}


def connect(port: int) -> socket.socket | None:
    """Return a connection whose calls do not wait, or None where it is refused."""
    line = socket.socket()
    line.setblocking(False)
    code = line.connect_ex((HOST, port))
    if code not in (0, errno.EINPROGRESS):
        line.close()
        return None
    return line


class Crowd:
    """Connections that are opened at once, and opened again when they are dropped.

    Args:
        port: of the service.
        number: how many.
        script: gives what each of them sends, piece after piece; a piece of b"" sends nothing for now.
        pause_s: between two pieces of one connection.
        budget: bytes that all may send together.
        reads: whether they read what comes.
        most_opened: connections in all, those that replace dropped ones among them.
        receive_bytes: size of their receive buffer; 0 for the system's.
    """

    def __init__(
        self,
        port: int,
        number: int,
        script: Callable[[], Iterator[bytes]],
        *,
        pause_s: float = 0.0,
        budget: int = HEADER_BYTES,
        reads: bool = True,
        receive_bytes: int = 0,
        most_opened: int = 4 * N_SILENT,
    ) -> None:
        self.port, self.number, self.script, self.pause_s = port, number, script, pause_s
        self.reads, self.receive_bytes, self.most_opened = reads, receive_bytes, most_opened
        self.left, self.sent, self.dropped, self.opened = budget, 0, 0, 0
        self.selector = selectors.DefaultSelector()

    def attack(self, until: float) -> None:
        """Go on until then, or until the bytes are spent."""
        try:
            while time.monotonic() < until and self.left > 0:
                is_refused = False
                while len(self.selector.get_map()) < self.number and self.opened < self.most_opened:
                    if is_refused := not self._open():
                        break
                self._turn()
                if is_refused:
                    time.sleep(0.02)
        finally:
            for key in list(self.selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
            self.selector.close()

    def _open(self) -> bool:
        line = connect(self.port)
        if line is None:
            return False
        if self.receive_bytes:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_bytes)
        self.opened += 1
        self.selector.register(line, selectors.EVENT_READ, [self.script(), b"", 0.0])
        return True

    def _turn(self) -> None:
        now = time.monotonic()
        for key in list(self.selector.get_map().values()):
            self._send(key.fileobj, key.data, now)  # type: ignore[arg-type]
        if not self.reads:
            time.sleep(0.01)
            return
        for key, _ in self.selector.select(0.001):
            try:
                is_over = not key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
            except BlockingIOError:
                continue
            except OSError:
                is_over = True
            if is_over:
                self._drop(key.fileobj)  # type: ignore[arg-type]

    def _send(self, line: socket.socket, state: list, now: float) -> None:
        if now < state[2]:
            return
        if not state[1]:
            state[1] = next(state[0], b"")
            state[2] = now + self.pause_s
            if not state[1]:
                return
        try:
            n_sent = line.send(state[1])
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                self._drop(line)
            return
        state[1] = state[1][n_sent:]
        self.sent += n_sent
        self.left -= n_sent

    def _drop(self, line: socket.socket) -> None:
        self.selector.unregister(line)
        line.close()
        self.dropped += 1


def say_nothing() -> Iterator[bytes]:
    """A connection without a word."""
    yield from ()


def send_headers() -> Iterator[bytes]:
    """A head that does not end."""
    yield _HEAD
    while True:
        yield _LINE * 60


def send_one_header() -> Iterator[bytes]:
    """One header that does not end."""
    yield _HEAD + b"X-Long: "
    while True:
        yield b"c" * 60_000


def send_trailers() -> Iterator[bytes]:
    """A body in chunks whose trailer does not end."""
    yield _POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    while True:
        yield _LINE * 60


def send_slow_head() -> Iterator[bytes]:
    """One byte of a head at a time."""
    yield _HEAD
    while True:
        yield b"X"


def send_slow_body() -> Iterator[bytes]:
    """One byte of a body at a time."""
    yield _POST + b"Content-Length: 100000\r\n\r\n["
    while True:
        yield b" "


def send_body_elsewhere() -> Iterator[bytes]:
    """One byte at a time of a body that nobody has asked for."""
    yield b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
    while True:
        yield b" "


def send_unfinished_bodies() -> Iterator[bytes]:
    """Nearly all of a large body, and then one byte at a time."""
    yield _POST + b"Content-Length: 4000000\r\n\r\n["
    yield b" " * 3_900_000
    while True:
        yield b" "


def send_pipeline() -> Iterator[bytes]:
    """Thousands of requests in one go, behind one that takes a moment."""
    body = json.dumps(["很好" * 100] * 100).encode()
    yield _POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    yield b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 6000


def send_lists() -> Iterator[bytes]:
    """Requests whose answers are large."""
    body = json.dumps(["很好" * 900] * 256).encode()
    while True:
        yield _POST + b"Content-Length: %d\r\n\r\n" % len(body) + body


def send_slow_upload() -> Iterator[bytes]:
    """One byte of a file at a time."""
    yield _UPLOAD + b"Content-Length: 100000\r\n\r\n" + _FORM
    while True:
        yield b"x"


def send_large_upload() -> Iterator[bytes]:
    """Nearly all of a large file, and then one byte at a time."""
    yield _UPLOAD + b"Content-Length: 40000000\r\n\r\n" + _FORM
    for _ in range(390):
        yield b"x" * 100_000
    while True:
        yield b"x"


def send_unfinished_events() -> Iterator[bytes]:
    """Nearly all of a large question to the page, and then one byte at a time."""
    yield _JOIN + b"Content-Length: 4000000\r\n\r\n["
    yield b" " * 3_900_000
    while True:
        yield b" "


def listen() -> Iterator[bytes]:
    """Events that a browser listens to for as long as it shows the page."""
    yield b"GET /gradio_api/heartbeat/%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % os.urandom(8).hex().encode()


def load_pages() -> Iterator[bytes]:
    """The page again and again."""
    while True:
        yield b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10


Attack = Callable[[int], list[Crowd]]
OF_HEADS: dict[str, Attack] = {
    "5,000 silent connections": lambda port: [Crowd(port, N_SILENT, say_nothing)],
    "1 GB of header lines": lambda port: [Crowd(port, N_FLOOD, send_headers)],
    "both at once": lambda port: [Crowd(port, N_SILENT, say_nothing), Crowd(port, N_FLOOD, send_headers)],
    "1 GB in one header": lambda port: [Crowd(port, N_FLOOD, send_one_header)],
    "1,500 heads, a byte a second": lambda port: [Crowd(port, 1500, send_slow_head, pause_s=1)],
}
ON_SERVICE: dict[str, Attack] = {
    **OF_HEADS,
    "1 GB of trailers": lambda port: [Crowd(port, N_FLOOD, send_trailers)],
    "1,500 bodies, a byte a second": lambda port: [Crowd(port, 1500, send_slow_body, pause_s=1)],
    "1,500 bodies that nobody wants": lambda port: [Crowd(port, 1500, send_body_elsewhere, pause_s=1)],
    "300 bodies of 4 MB that never end": lambda port: [
        Crowd(port, 300, send_unfinished_bodies, pause_s=1, budget=4 * HEADER_BYTES)
    ],
    "200 pipelines of 6,000 requests": lambda port: [Crowd(port, 200, send_pipeline, reads=False)],
    "200 that read no answer": lambda port: [
        Crowd(port, 200, send_lists, reads=False, receive_bytes=4096, budget=4 * HEADER_BYTES)
    ],
}
ON_PAGE: dict[str, Attack] = {
    **OF_HEADS,
    "1,500 uploads, a byte a second": lambda port: [Crowd(port, 1500, send_slow_upload, pause_s=1)],
    "100 uploads of 40 MB that never end": lambda port: [Crowd(port, 100, send_large_upload, budget=4 * HEADER_BYTES)],
    "300 questions of 4 MB that never end": lambda port: [
        Crowd(port, 300, send_unfinished_events, pause_s=1, budget=4 * HEADER_BYTES)
    ],
    "1,500 that listen to events": lambda port: [Crowd(port, 1500, listen)],
    "200 that read no answer": lambda port: [Crowd(port, 200, load_pages, reads=False, receive_bytes=4096)],
}


def try_attack(src: Path, attack: Attack, seconds: float, *, is_page: bool) -> dict[str, str]:
    """Return what was answered and what it took."""
    questions = OF_PAGE if is_page else OF_SERVICE
    with tempfile.TemporaryDirectory() as folder, start_service(src, Path(folder), is_page=is_page) as service:
        answers = {name: Answers() for name in questions}
        for question in questions.values():
            note(question, service.port, Answers())
        before_mb = service.read_memory_mb("VmRSS")
        until = time.monotonic() + seconds
        crowds = attack(service.port)
        threads = [threading.Thread(target=crowd.attack, args=(until,)) for crowd in crowds]
        for thread in threads:
            thread.start()
        time.sleep(1.0)
        while time.monotonic() < until and any(thread.is_alive() for thread in threads):
            for name, question in questions.items():
                note(question, service.port, answers[name])
            time.sleep(ASK_EVERY_S)
        for thread in threads:
            thread.join()
        peak_mb = service.read_memory_mb("VmHWM")
        has_ended = service.process.poll() is not None
        lines = service.log.read_text().splitlines()
    sent_mb = sum(crowd.sent for crowd in crowds) // 1_000_000
    return {
        **{name: answered.describe() for name, answered in answers.items()},
        "sent, MB": str(sent_mb),
        "opened": str(sum(crowd.opened for crowd in crowds)),
        "memory, MB": f"{before_mb} to {peak_mb}" + (", has ended" if has_ended else ""),
        "log lines": str(len(lines)),
        "first log line": lines[0][:160] if lines else "",
    }


def main() -> None:
    """Run the attacks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = Path(__file__).resolve().parents[2] / "src"
    parser.add_argument("--against", type=Path, help="src of another checkout, attacked first")
    parser.add_argument("--only", default="", help="part of the names of the attacks to run")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each attack")
    parser.add_argument("--page", action="store_true", help="attack the page and not the service")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    columns = [*(OF_PAGE if options.page else OF_SERVICE), "sent, MB", "opened", "memory, MB", "log lines"]
    print("| attack | version | " + " | ".join(columns) + " |", flush=True)
    print("| --- " * (len(columns) + 2) + "|", flush=True)
    for name, attack in (ON_PAGE if options.page else ON_SERVICE).items():
        if options.only not in name:
            continue
        for version, src in (("before", options.against), ("now", here)):
            if src is None:
                continue
            row = try_attack(src.resolve(), attack, options.seconds, is_page=options.page)
            print(f"| {name} | {version} | " + " | ".join(row[column] for column in columns) + " |", flush=True)
            print(f"    {row['first log line']}", file=sys.stderr)


if __name__ == "__main__":
    main()
