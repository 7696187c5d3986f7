"""A server's /classify, asked through the engine for addresses."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sentifactory.engines.registry import build_engine
from sentifactory.errors import ConfigError, EngineError
from sentifactory.records import Review
from sentifactory.task.task import BINARY_SENTIMENT


@dataclass
class Classifier:
    labels: tuple[str, ...] = ("negative", "positive")
    status: int = 200
    asked: list[str] = field(default_factory=list)
    address: str = ""


@pytest.fixture
def server() -> Iterator[Classifier]:
    """A server that finds a review the better the more 好 it holds, and answers as vLLM does."""
    state = Classifier()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

        def send(self, body: object, status: int = 200) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self.send({"data": [{"id": "encoder", "root": "/models/encoder"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/classify"
            assert body["truncate_prompt_tokens"] == -1
            state.asked.append(body["input"])
            good = body["input"].count("好") / (body["input"].count("好") + 1)
            probs = [1 - good, good] + [0.0] * (len(state.labels) - 2)
            label = state.labels[probs.index(max(probs))]
            entry = {"index": 0, "label": label, "probs": probs, "num_classes": len(probs)}
            self.send({"data": [entry]} if state.status == 200 else {"message": "no such route"}, state.status)

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    state.address = f"http://127.0.0.1:{running.server_port}/classify"
    yield state
    running.shutdown()
    running.server_close()


def test_probabilities_come_back_in_the_order_of_the_reviews(server: Classifier) -> None:
    with build_engine(server.address, "", BINARY_SENTIMENT, mode="score") as engine:
        answers = engine.predict([Review("好好好"), Review("差"), Review("好</s>好[SEP]")])
    assert [answer.label for answer in answers] == [1, 0, 1]
    assert answers[0].probabilities == pytest.approx((0.25, 0.75))
    assert sorted(server.asked) == sorted(["。", "好好好", "差", "好< /s>好[ SEP]"]), "control tokens are text"


@pytest.mark.parametrize("labels", [("positive", "negative"), ("negative", "neutral", "positive"), ("a", "b")])
def test_other_labels_are_seen_before_the_first_review(server: Classifier, labels: tuple[str, ...]) -> None:
    server.labels = labels
    with pytest.raises(EngineError, match="not the task's, or not in its order"):
        build_engine(server.address, "", BINARY_SENTIMENT, mode="score")
    assert server.asked == ["。"]


def test_labels_without_names_are_taken_in_their_order(server: Classifier) -> None:
    server.labels = ("LABEL_0", "LABEL_1")
    with build_engine(server.address, "", BINARY_SENTIMENT, mode="score") as engine:
        assert engine.predict([Review("好好")])[0].label == 1


def test_a_server_that_does_not_classify(server: Classifier) -> None:
    server.status = 404
    with pytest.raises(EngineError, match="HTTP 404"):
        build_engine(server.address, "", BINARY_SENTIMENT, mode="score")


def test_there_is_one_mode(server: Classifier) -> None:
    with pytest.raises(ConfigError, match="no mode 'generate'"):
        build_engine(server.address, "", BINARY_SENTIMENT)
