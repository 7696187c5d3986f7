"""Typed decisions: the probabilities of /predict where the model was taught the question, else a refusal."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_service import KEY, build_service, read_metric, serve_engine, serve_live
from tiny_models import build_tiny_bert

from sentifactory.engines.registry import build_engine
from sentifactory.engines.vllm.vllm_install import find_vllm_python
from sentifactory.metrics.calibration import Calibration
from sentifactory.serving.answer_format import AnswerFormatter
from sentifactory.serving.http.typed_decisions import has_stars
from sentifactory.serving.service_settings import Access, Limits
from sentifactory.task.task import BINARY_SENTIMENT, Task
from sentifactory.task.task_file import load_task
from tools.service_bench.scripted_engine import ScriptedEngine, script_answer

LIMITS = Limits(text_chars=50, list_items=5, queue_items=8)
TEXT = "房间干净"
CHOICE = {"type": "choice", "criteria": {"positive": "pleased", "negative": None}}
ASKED = {"type": "choice", "instructions": "?", "choices": [{"value": "positive"}, {"value": "negative"}]}


@pytest.fixture(scope="module")
def stars(repo_root: Path) -> Task:
    return load_task(repo_root / "examples" / "tasks" / "star_rating.yaml")


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    service = build_service(ScriptedEngine(BINARY_SENTIMENT), LIMITS)
    with serve_live(service) as address, httpx.Client(base_url=address, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def star_client(stars: Task) -> Iterator[httpx.Client]:
    service = build_service(ScriptedEngine(stars), LIMITS, task=stars)
    with serve_live(service) as address, httpx.Client(base_url=address, trust_env=False) as client:
        yield client


def ask_system_one(client: httpx.Client, questions: Any, **fields: Any) -> httpx.Response:
    return post(client, "/v1/systemone", {"state": TEXT, "questions": questions, **fields})


def ask_decisions(client: httpx.Client, questions: Any, **fields: Any) -> httpx.Response:
    return post(client, "/v1/decisions", {"model": "", "input": TEXT, "questions": questions, **fields})


def post(client: httpx.Client, route: str, body: Any) -> httpx.Response:
    content = json.dumps(body)  # httpx's own cannot send half a character
    return client.post(route, content=content, headers={"Content-Type": "application/json"})


def expect_code(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    assert (response.json()["error"]["status"], response.json()["error"]["code"]) == (status, code)


def test_a_choice_among_the_labels_has_the_probabilities_of_predict(client: httpx.Client) -> None:
    expected = client.post("/predict", json={"text": TEXT}).json()
    answers = {"1": 1, "0": 0}
    response = ask_system_one(client, {"a": CHOICE, "b": {"type": "choice", "criteria": answers}}, request_id="7")
    assert response.status_code == 200, response.text
    found = response.json()
    assert (found["id"], found["object"], found["model"]) == ("decision-7", "structured_decision", "scripted")
    assert found["answers"]["a"] == {
        "type": "choice",
        "choice": expected["label"],
        "probabilities": expected["probabilities"],
        "confidence": expected["score"],
    }
    assert list(found["answers"]["a"]["probabilities"]) == ["positive", "negative"]
    assert found["answers"]["b"]["choice"] == str(BINARY_SENTIMENT.labels.index(expected["label"]))
    assert set(found["diagnostics"]) == {"a", "b"}
    decided = ask_decisions(client, [{**ASKED, "name": "a"}, ASKED]).json()
    assert [one["name"] for one in decided["answers"]] == ["a", None]
    first = decided["answers"][0]
    assert (first["choice"], first["confidence"]) == (expected["label"], expected["score"])
    assert {one["value"]: one["probability"] for one in first["probabilities"]} == expected["probabilities"]
    metrics = client.get("/metrics").text
    assert read_metric(metrics, 'sentifactory_requests_total{route="/v1/systemone",status="200"}') >= 1


def test_the_model_is_asked_once_for_all_questions_about_a_text() -> None:
    service = build_service(ScriptedEngine(BINARY_SENTIMENT), LIMITS)
    with serve_live(service) as address, httpx.Client(base_url=address, trust_env=False) as client:
        assert ask_system_one(client, {str(at): CHOICE for at in range(9)}).status_code == 200
        metrics = client.get("/metrics").text
    label = BINARY_SENTIMENT.labels[script_answer(TEXT, 2).label or 0]
    assert read_metric(metrics, f'sentifactory_answers_total{{label="{label}"}}') == 1


def test_stars_are_a_score_with_its_expected_level(star_client: httpx.Client, stars: Task) -> None:
    shares = script_answer(TEXT, 5).probabilities or ()
    expected = pytest.approx(sum(level * share for level, share in enumerate(shares)), abs=1e-5)
    for levels in (list(stars.labels), [1, 2, 3, 4, 5]):
        found = ask_system_one(star_client, {"a": {"type": "score", "criteria": levels}}).json()["answers"]["a"]
        assert found["score"] == expected
        assert found["legend"] == {str(at): str(level) for at, level in enumerate(levels)}
        assert list(found["probabilities"].values()) == pytest.approx(shares, abs=1e-6)
        assert found["confidence"] == pytest.approx(max(shares), abs=1e-6)
        labels = [{"label": str(level)} for level in levels]
        decided = ask_decisions(star_client, [{"type": "score", "instructions": "", "levels": labels}]).json()
        assert decided["answers"][0]["score"] == expected
        assert [one["value"] for one in decided["answers"][0]["probabilities"]] == [0, 1, 2, 3, 4]
    choice = {"type": "choice", "criteria": dict.fromkeys(reversed(stars.labels))}
    found = ask_system_one(star_client, {"a": choice}).json()["answers"]["a"]
    assert found["choice"] == stars.labels[shares.index(max(shares))]


@pytest.mark.parametrize(
    "question",
    [
        {"type": "noul", "instructions": "Is it positive?"},
        {"type": "score", "criteria": ["negative", "positive"]},
        {"type": "choice", "criteria": {"negative": None}},
        {"type": "choice", "criteria": {"negative": None, "positive": None, "neutral": None}},
        {"type": "choice", "criteria": {"negative": None, "1": None}},
        {"type": "choice", "criteria": {"shipping": None, "billing": None}},
        {"type": "choice", "criteria": ["negative", "positive"]},
        {"type": "choice"},
        {"type": "\ud83d", "criteria": {"\ud83d": None}},
    ],
)
def test_what_the_model_was_not_taught_is_refused(client: httpx.Client, question: dict[str, Any]) -> None:
    expect_code(ask_system_one(client, {"a": CHOICE, "b": question}), 422, "not_taught")


@pytest.mark.parametrize(
    "question",
    [
        {"type": "predicate", "instructions": "Is it positive?"},
        {"type": "score", "instructions": "", "levels": [{"label": "negative"}, {"label": "positive"}]},
        {"type": "choice", "instructions": "", "choices": [{"value": False}, {"value": True}]},
        {"type": "choice", "instructions": "", "choices": [{"value": "negative"}, {"value": "negative"}]},
    ],
)
def test_so_is_it_in_the_other_protocol(client: httpx.Client, question: dict[str, Any]) -> None:
    expect_code(ask_decisions(client, [ASKED, question]), 422, "not_taught")


@pytest.mark.parametrize(
    "levels", [[5, 4, 3, 2, 1], [1, 2, 3], ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"]]
)
def test_a_score_on_another_scale_is_refused(star_client: httpx.Client, levels: list[Any]) -> None:
    expect_code(ask_system_one(star_client, {"a": {"type": "score", "criteria": levels}}), 422, "not_taught")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"state": ""}, 400, "blank_text"),
        ({"state": "\ud83d"}, 400, "broken_text"),
        ({"state": "长" * 51}, 413, "text_too_long"),
        ({"state": {"review": TEXT}}, 422, "wrong_form"),
        ({"questions": {}}, 422, "wrong_form"),
        ({"questions": {"": CHOICE}}, 422, "wrong_form"),
        ({"questions": {"\ud83d": CHOICE}}, 422, "wrong_form"),
        ({"questions": {str(at): CHOICE for at in range(65)}}, 422, "wrong_form"),
        ({"questions": {"a": {**CHOICE, "weight": 1}}}, 422, "wrong_form"),
        ({"\ud83d": 1}, 422, "wrong_form"),
        ({"request_id": "\ud83d"}, 422, "wrong_form"),
        ({"priority": "1"}, 422, "wrong_form"),
        ({"model": "another"}, 404, "not_found"),
        ({"instructions": "Answer for the staff alone."}, 422, "not_taught"),
        ({"images": ["http://127.0.0.1/a.png"]}, 422, "not_taught"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, 422, "not_taught"),
        ({"model": "scripted", "images": [], "chat_template_kwargs": {"enable_thinking": False}}, 200, ""),
    ],
)
def test_every_fault_of_a_system_one_request(client: httpx.Client, fields: Any, status: int, code: str) -> None:
    response = ask_system_one(client, **{"questions": {"a": CHOICE}, **fields})
    if status == 200:
        assert response.status_code == 200, response.text
    else:
        expect_code(response, status, code)


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"input": " "}, 400, "blank_text"),
        ({"input": [{"role": "system", "content": TEXT}]}, 422, "wrong_form"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "a"}]}]}, 422, "wrong_form"),
        ({"questions": []}, 422, "wrong_form"),
        ({"questions": [{**ASKED, "name": "\ud83d"}]}, 422, "wrong_form"),
        ({"questions": [{"type": "essay", "instructions": ""}]}, 422, "wrong_form"),
        ({"temperature": 0}, 422, "wrong_form"),
        ({"model": "gpt-6-luna"}, 404, "not_found"),
    ],
)
def test_every_fault_of_a_decisions_request(client: httpx.Client, fields: Any, status: int, code: str) -> None:
    expect_code(ask_decisions(client, **{"questions": [ASKED], **fields}), status, code)


def test_messages_are_joined_to_one_text(client: httpx.Client) -> None:
    parts = [{"type": "input_text", "text": "一"}, {"type": "input_text", "text": "二"}]
    given = [{"role": "user", "content": parts}, {"type": "message", "role": "user", "content": "三"}]
    found = ask_decisions(client, [ASKED], input=given).json()["answers"][0]
    assert found["confidence"] == client.post("/predict", json={"text": "一\n二\n\n三"}).json()["score"]


def test_below_the_threshold_no_label_is_given() -> None:
    service = build_service(ScriptedEngine(BINARY_SENTIMENT), LIMITS, threshold=1.0)
    with serve_live(service) as address, httpx.Client(base_url=address, trust_env=False) as client:
        expect_code(ask_system_one(client, {"a": CHOICE}), 422, "no_label")
        refused = ask_decisions(client, [{**ASKED, "name": "a"}, ASKED]).json()
    assert refused["answers"] == [{"type": "refusal", "name": "a"}, {"type": "refusal", "name": None}]


def test_the_description_has_an_example_that_is_answered(client: httpx.Client, star_client: httpx.Client) -> None:
    for one in (client, star_client):
        paths = one.get("/openapi.json").json()["paths"]
        for route in ("/v1/systemone", "/v1/decisions"):
            content = paths[route]["post"]["requestBody"]["content"]["application/json"]
            assert "$ref" not in json.dumps(content)
            assert one.post(route, json=content["example"]).status_code == 200


def test_numbers_are_stars_only_under_a_name_that_says_so(stars: Task, three: Task) -> None:
    assert has_stars(stars)
    assert not has_stars(three)
    assert not has_stars(BINARY_SENTIMENT)


@pytest.mark.vllm
@pytest.mark.slow
def test_clients_of_others_are_answered(stars: Task, tmp_path: Path) -> None:
    """vLLM's own models and OpenAI's client, on a real classifier with a calibration and a key."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    bare, folder = build_tiny_bert(tmp_path), tmp_path / "encoder"
    labels = dict(enumerate(stars.labels))
    AutoModelForSequenceClassification.from_pretrained(bare, id2label=labels).save_pretrained(folder)
    AutoTokenizer.from_pretrained(bare).save_pretrained(folder)
    calibration = Calibration("temperature", 0.2, (0.0,) * 5, stars.name, "", None, 0.95, {}, {})
    formatter = AnswerFormatter(stars, "tiny", calibration)
    levels = [{"label": label} for label in stars.labels]
    choices = [{"value": label} for label in stars.labels]
    asked = [
        ("systemone", {"state": TEXT, "questions": {"stars": {"type": "score", "criteria": list(stars.labels)}}}),
        ("systemone", {"state": TEXT, "questions": {"fast": {"type": "noul", "instructions": "Is it fast?"}}}),
        (
            "decisions",
            {
                "model": "tiny",
                "input": TEXT,
                "questions": [
                    {"type": "score", "name": "stars", "instructions": "How many stars?", "levels": levels},
                    {"type": "choice", "name": "label", "instructions": "Which?", "choices": choices},
                ],
            },
        ),
        (
            "decisions",
            {"model": "tiny", "input": TEXT, "questions": [{"type": "predicate", "instructions": "Is it fast?"}]},
        ),
    ]
    with (
        build_engine("encoder", str(folder), stars, name="tiny", mode="score", is_calibrated=False) as engine,
        serve_live(serve_engine(engine, formatter, Limits()), Access(key=KEY)) as address,
    ):
        headers = {"Authorization": f"Bearer {KEY}"}
        expected = httpx.post(f"{address}/predict", json={"text": TEXT}, headers=headers, trust_env=False).json()
        program = Path(__file__).with_name("typed_clients.py")
        finished = subprocess.run(
            [find_vllm_python(), program, address, KEY],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=900,
            env={**os.environ, "NO_PROXY": "127.0.0.1"},
        )
    assert finished.returncode == 0, finished.stderr[-2000:]
    scored, no_noul, decided, no_predicate = json.loads(finished.stdout.splitlines()[-1])
    shares = list(expected["probabilities"].values())
    level = pytest.approx(sum(at * share for at, share in enumerate(shares)), abs=1e-5)
    assert (scored["status"], scored["extra"]) == (200, {})
    assert scored["answers"]["stars"]["score"] == level
    assert list(scored["answers"]["stars"]["probabilities"].values()) == shares
    assert (no_noul["status"], no_noul["error"]["code"]) == (422, "not_taught")
    assert decided["types"] == ["AnswerAnswerResourceScore", "AnswerAnswerResourceChoice"]
    assert decided["answers"][0]["score"] == level
    assert decided["answers"][1]["choice"] == expected["label"]
    assert [one["probability"] for one in decided["answers"][1]["probabilities"]] == shares
    assert (no_predicate["status"], no_predicate["error"]["code"]) == (422, "not_taught")
