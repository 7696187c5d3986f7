"""A classification server without a model: one text at a time, each in a fixed time, with faults on request.

It answers like vLLM's `/classify`, by `scripted_engine.script_answer`. `POST /behave` changes its time for a text or
lets it refuse everything for a while; `GET /counts` tells what it has answered.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sentifactory.engines.openai.classify_mode import PROBE_TEXT
from sentifactory.task.task import BINARY_SENTIMENT
from tools.service_bench.scripted_engine import script_answer


class StubServer(ThreadingHTTPServer):
    """The server and its counts.

    Args:
        text_s: seconds for a text.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, text_s: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.device = threading.Lock()
        self.text_s = text_s
        self.fails_until = 0.0
        self.answered: Counter[str] = Counter()
        self.times: list[float] = []

    def answer(self, text: str) -> dict[str, Any]:
        """Return the classification of a text when the device has come to it."""
        with self.device:
            time.sleep(self.text_s)
            if text != PROBE_TEXT:
                self.answered[text] += 1
                self.times.append(time.time())
        prediction = script_answer(text, len(BINARY_SENTIMENT.labels))
        label = BINARY_SENTIMENT.labels[prediction.label or 0]
        return {"data": [{"label": label, "probs": prediction.probabilities}]}

    def describe(self) -> dict[str, Any]:
        """Return how many texts were answered, how many of them again, and the times (s) of the first and the last.

        What a client asks before its first text is not counted.
        """
        again = sum(count - 1 for count in self.answered.values())
        ends = [self.times[0], self.times[-1]] if self.times else []
        return {"texts": len(self.answered), "again": again, "from_to": ends}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StubServer

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""

    def handle(self) -> None:
        """Serve a connection until the client closes it, or dies."""
        with contextlib.suppress(ConnectionError, ValueError):
            super().handle()

    def do_GET(self) -> None:
        """Answer `/v1/models` and `/counts`."""
        self._reply(self.server.describe() if self.path == "/counts" else {"data": [{"id": "base"}]})

    def do_POST(self) -> None:
        """Answer `/classify` and `/behave`."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/behave":
            self.server.text_s = body.get("text_s", self.server.text_s)
            self.server.fails_until = time.monotonic() + body.get("fails_s", 0.0)
            self._reply({})
        elif time.monotonic() < self.server.fails_until:
            self._reply({"error": "out of order"}, 500)
        else:
            self._reply(self.server.answer(body["input"]))

    def _reply(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve, with the seconds for a text from the command line; the port is printed."""
    with StubServer(float(sys.argv[1])) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
