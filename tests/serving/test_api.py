"""The REST interface: results in order, and for every fault its status in one shape."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import httpx
import pytest
from live_service import KEY, build_service, read_metric, serve_live

from sentifactory.clean_text import VISIBLE, clean_text
from sentifactory.engines.base import ClosingEngine, OnAnswer, report_answers
from sentifactory.records import Prediction, Review
from sentifactory.serving.http import middleware
from sentifactory.serving.http.api import build_app
from sentifactory.serving.http.docs_page import DOCS_ROUTES
from sentifactory.serving.http.middleware import OPEN_ROUTES
from sentifactory.serving.http.problems import CODES
from sentifactory.serving.service_settings import Access, Limits
from sentifactory.task.task import BINARY_SENTIMENT
from tools.service_bench.scripted_engine import ScriptedEngine, script_answer

LIMITS = Limits(text_chars=50, list_items=5, body_bytes=2000, body_s=0.5, queue_items=8, request_s=1.0)
ASKED = {
    "/predict": {"text": "好"},
    "/v1/systemone": {
        "state": "好",
        "questions": {"a": {"type": "choice", "criteria": {"negative": None, "positive": None}}},
    },
    "/v1/decisions": {
        "model": "",
        "input": "好",
        "questions": [
            {"type": "choice", "instructions": "", "choices": [{"value": "negative"}, {"value": "positive"}]}
        ],
    },
}
BROKEN, SILENT, SECRET = "坏", "无", "/home/secret/model on 10.0.0.7"


class MoodyEngine(ClosingEngine):
    """Scripted, but it breaks on one word and names no label for another."""

    name = "moody"

    def predict(self, reviews: list[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        if any(BROKEN in review.text for review in reviews):
            raise ValueError(f"no such file {SECRET}")
        answers = [Prediction(None) if SILENT in one.text else script_answer(one.text, 2) for one in reviews]
        return report_answers(answers, on_answer)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    service = build_service(MoodyEngine(), LIMITS)
    with serve_live(service) as address, httpx.Client(base_url=address, trust_env=False) as client:
        yield client


def expect_error(response: httpx.Response, status: int, code: str) -> dict:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    assert body["error"]["code"] == code
    assert body["error"]["status"] == status == CODES[code]
    assert SECRET not in response.text
    assert "Traceback" not in response.text
    return body["error"]


def test_one_text_gets_label_probabilities_and_time(client: httpx.Client) -> None:
    answer = client.post("/predict", json={"text": "房间干净"}).json()
    expected = script_answer("房间干净", 2)
    assert set(answer) == {"text", "label", "emoji", "score", "probabilities", "unsure", "model", "latency_ms"}
    assert answer["label"] == BINARY_SENTIMENT.labels[expected.label]
    assert answer["score"] == pytest.approx(max(expected.probabilities), abs=1e-6)
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert answer["emoji"] in ("\U0001f60a", "\U0001f61e")
    assert (answer["text"], answer["model"], answer["unsure"]) == ("房间干净", "scripted", False)
    assert answer["latency_ms"] > 0


def test_a_text_is_asked_as_training_texts_are_and_comes_back_as_it_was(client: httpx.Client) -> None:
    text = "\u200b房间&amp;服务 "
    answer = client.post("/predict", json={"text": text}).json()
    assert answer["text"] == text
    assert answer["score"] == pytest.approx(max(script_answer("房间&服务", 2).probabilities or ()), abs=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "好",
        "\ufe0f",
        "\u3164 \u034f",
        "❤\ufe0f",
        "🏴\U000e0067\U000e007f",
        "\u200b",
        "\u200d \u200f\x85",
        "\ufeff",
        "\U000e0041",
        "\0",
    ],
)
def test_the_described_pattern_and_the_cleaning_agree_on_what_is_blank(text: str) -> None:
    assert (re.search(VISIBLE, text) is not None) == bool(clean_text(text)[0])


def test_a_list_comes_back_in_order_and_each_text_has_its_own_result_or_error(client: httpx.Client) -> None:
    answers = client.post("/predict", json=["甲", " ", {"text": f"乙{BROKEN}"}, 7, {"text": f"丙{SILENT}"}]).json()
    assert answers[0]["text"] == "甲"
    codes = [answer["error"]["code"] for answer in answers[1:]]
    assert codes == ["blank_text", "not_ready", "wrong_form", "no_label"]
    assert SECRET not in json.dumps(answers)
    texts = ["一", "二", "三", "四"]
    assert [answer["text"] for answer in client.post("/predict", json=texts).json()] == texts
    assert client.post("/predict", json=[]).json() == []


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b'{"text": "', 400, "no_json"),
        (b'{"text": NaN}', 400, "no_json"),
        (b"[" * 1999, 400, "no_json"),
        ('{"text": "好"}'.encode("gb18030"), 400, "no_json"),
        (b"", 400, "no_json"),
        (b'{"text": ""}', 400, "blank_text"),
        (b'{"text": " \\u3000\\n"}', 400, "blank_text"),
        (b'{"text": "\\ufeff\\u001c\\u0085"}', 400, "blank_text"),
        (b'{"text": "\\u200b\\u200d\\u2060\\ufeff"}', 400, "blank_text"),
        (b'{"text": "&nbsp;&#8203; "}', 400, "blank_text"),
        (b'{"text": "\\ufe0f\\u034f \\u3164\\u200d\\u2800"}', 400, "blank_text"),
        (b'{"text": "\\ud83d"}', 400, "broken_text"),
        (b"7", 422, "wrong_form"),
        (b"{}", 422, "wrong_form"),
        (b'{"text": 7}', 422, "wrong_form"),
        (b'{"text": "a", "temperature": 2}', 422, "wrong_form"),
        (json.dumps({"text": "长" * 51}).encode(), 413, "text_too_long"),
        (json.dumps(["短"] * 6).encode(), 413, "list_too_long"),
        (b" " * 2001, 413, "body_too_large"),
        (json.dumps({"text": SILENT}).encode(), 422, "no_label"),
        (json.dumps({"text": BROKEN}).encode(), 503, "not_ready"),
        (json.dumps([BROKEN, BROKEN]).encode(), 503, "not_ready"),
    ],
)
def test_every_fault_has_its_status(client: httpx.Client, content: bytes, status: int, code: str) -> None:
    response = client.post("/predict", content=content, headers={"Content-Type": "application/json"})
    expect_error(response, status, code)
    assert ("retry-after" in response.headers) == (status in (429, 503, 504))


def test_a_body_without_a_length_is_limited_as_well(client: httpx.Client) -> None:
    chunks = iter([b" " * 900] * 5)
    response = client.post("/predict", content=chunks, headers={"Content-Type": "application/json"})
    expect_error(response, 413, "body_too_large")


def test_a_body_that_does_not_come_is_given_up(client: httpx.Client) -> None:
    import socket

    port = client.base_url.port
    with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
        line.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 9\r\n\r\n{"
        )
        answer = line.recv(4096).decode()
    assert answer.startswith("HTTP/1.1 408")
    assert '"slow_body"' in answer


def test_other_types_addresses_and_methods_are_refused_in_the_same_shape(client: httpx.Client) -> None:
    expect_error(client.post("/predict", content=b"text=a"), 415, "wrong_type")
    expect_error(client.post("/predict", data={"text": "a"}), 415, "wrong_type")
    expect_error(client.get("/nothing"), 404, "not_found")
    expect_error(client.post("/predict/"), 404, "not_found")
    response = client.get("/predict")
    expect_error(response, 405, "wrong_method")
    assert response.headers["allow"] == "POST"


def test_metrics_count_answers_problems_and_shares(client: httpx.Client) -> None:
    before = client.get("/metrics").text
    texts = ["一", "二", "三", "四"]
    labels = [answer["label"] for answer in client.post("/predict", json=texts).json()]
    client.post("/predict", json={"text": ""})
    after = client.get("/metrics").text

    def grow(name: str) -> float:
        def read(text: str) -> float:
            return read_metric(text, name) if name in text else 0.0

        return read(after) - read(before)

    for name in BINARY_SENTIMENT.labels:
        assert grow(f'sentifactory_answers_total{{label="{name}"}}') == labels.count(name)
    assert grow('sentifactory_problems_total{code="blank_text"}') == 1
    assert grow('sentifactory_requests_total{route="/predict",status="200"}') == 1
    assert grow('sentifactory_request_seconds_count{route="/predict"}') == 2
    shares = [read_metric(after, f'sentifactory_label_share{{label="{name}"}}') for name in BINARY_SENTIMENT.labels]
    assert sum(shares) == pytest.approx(1)
    assert read_metric(after, "sentifactory_unsure_share") == 0
    assert read_metric(after, "sentifactory_queue_texts") == 0
    assert read_metric(after, "sentifactory_ready") == 1


def test_health_docs_and_description(client: httpx.Client) -> None:
    assert client.get("/health").json() == {
        "live": True, "ready": True, "model": "scripted", "task": "binary_sentiment", "tuned": None,
    }  # fmt: skip
    assert client.get("/health/ready").status_code == 200
    described = client.get("/openapi.json").json()
    app = build_app(build_service(ScriptedEngine(BINARY_SENTIMENT), LIMITS), Access())
    routes = {route.path for route in app.routes} - {"/openapi.json", *DOCS_ROUTES}
    assert set(described["paths"]) == routes
    body = described["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["anyOf"][0]["properties"]["text"]["maxLength"] == 50
    assert body["anyOf"][1]["maxItems"] == 5


def test_every_route_asks_for_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generated from the route table: a route that is added tomorrow is tested as well."""
    monkeypatch.setattr(middleware, "WRONG_KEY_DELAY_S", 0.0)
    service = build_service(ScriptedEngine(BINARY_SENTIMENT), LIMITS)
    access = Access(key=KEY)
    table = [
        (route.path, method)
        for route in build_app(service, access).routes
        for method in sorted(route.methods or {"GET"})
    ]
    assert len(table) > 7
    wrong = [{}, *({"Authorization": f"Bearer {key}"} for key in ("wrong", KEY + "x", KEY[:-1]))]
    wrong += [{"Authorization": KEY}, {"Authorization": f"Basic {KEY}"}]
    with serve_live(service, access) as address, httpx.Client(base_url=address, trust_env=False) as client:
        for path, method in table:
            body = {"json": ASKED[path]} if method == "POST" else {}
            for headers in wrong:
                response = client.request(method, path, headers=headers, **body)
                if path in OPEN_ROUTES:
                    assert response.status_code == 200, path
                    continue
                assert response.status_code == 401, (path, method, headers)
                assert response.headers["www-authenticate"] == "Bearer"
                if method != "HEAD":
                    expect_error(response, 401, "no_key")
            right = client.request(method, path, headers={"Authorization": f"Bearer {KEY}"}, **body)
            assert right.status_code == 200, (path, method)
        expect_error(client.get("/nothing"), 401, "no_key")  # who has no key learns not even what there is
        twice = [("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {KEY}")]
        expect_error(client.get("/metrics", headers=twice), 401, "no_key")
        told = client.get("/metrics", headers={"Authorization": f"Bearer {KEY}"}).text
    refused = len(wrong) * sum(path not in OPEN_ROUTES for path, _ in table) + 2
    assert read_metric(told, 'sentifactory_problems_total{code="no_key"}') == refused


def test_web_pages_are_let_in_only_when_asked(client: httpx.Client) -> None:
    ask = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in client.options("/predict", headers=ask).headers
    assert "access-control-allow-origin" not in client.post("/predict", json={"text": "好"}, headers=ask).headers
    service = build_service(ScriptedEngine(BINARY_SENTIMENT), LIMITS)
    access = Access(key=KEY, cors_origins=("https://shop.example",))
    with serve_live(service, access) as address, httpx.Client(base_url=address, trust_env=False) as other:
        allowed = other.options("/predict", headers=ask)
        assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
        refused = other.options("/predict", headers={**ask, "Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in refused.headers


def test_below_the_threshold_no_label_is_given() -> None:
    service = build_service(ScriptedEngine(BINARY_SENTIMENT), LIMITS, threshold=0.75)
    texts = ["甲", "乙", "丙", "丁", "戊"]
    with serve_live(service) as address, httpx.Client(base_url=address, trust_env=False) as client:
        answers = client.post("/predict", json=texts).json()
        metrics = client.get("/metrics").text
    unsure = [max(script_answer(text, 2).probabilities) < 0.75 for text in texts]
    assert 0 < sum(unsure) < 5, "the test can fail"
    assert [answer["unsure"] for answer in answers] == unsure
    assert [answer["label"] is None for answer in answers] == unsure
    assert all(answer["score"] is not None for answer in answers)
    assert read_metric(metrics, "sentifactory_unsure_share") == pytest.approx(sum(unsure) / 5)
