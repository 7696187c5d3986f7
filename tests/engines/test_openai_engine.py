from __future__ import annotations

import asyncio
import socket

import pytest
from fake_openai_server import Behaviour

from sentifactory.engines.openai import connection
from sentifactory.engines.openai.connection import RetryPolicy
from sentifactory.engines.openai.openai_engine import OpenAiEngine
from sentifactory.engines.openai.request_errors import normalise_address
from sentifactory.errors import ConfigError, EngineError
from sentifactory.records import Review, Source
from sentifactory.task.task import BINARY_SENTIMENT

Fake = tuple[Behaviour, str]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_PAUSE_S", 0.01)
    for key in connection.KEY_VARIABLES:
        monkeypatch.delenv(key, raising=False)


def ask(address: str, texts: list[str], **settings: object):
    with OpenAiEngine(address, "base", BINARY_SENTIMENT, **settings) as engine:
        return engine.predict([Review(text) for text in texts])


def test_answers_come_in_the_order_of_the_reviews(fake: Fake) -> None:
    behaviour, address = fake
    behaviour.answer_delay_s = 0.02
    texts = [f"{word}{number}" for number in range(40) for word in ("好", "差", "乱")]
    predictions = ask(address, texts, concurrency=8)
    assert [prediction.label for prediction in predictions] == [1, 0, None] * 40
    assert [prediction.raw for prediction in predictions[2::3]] == [f"乱{number}……" for number in range(40)]
    assert 2 <= behaviour.most_at_once <= 8
    assert all(0.02 <= prediction.latency_s < 5 for prediction in predictions)


def test_the_request_is_greedy_seeded_and_the_tasks_own_prompt(fake: Fake) -> None:
    behaviour, address = fake
    ask(f"{address}/v1/", ["还可以"], max_new_tokens=9)
    assert behaviour.bodies == [
        {
            "model": "base",
            "messages": BINARY_SENTIMENT.render_messages("还可以"),
            "temperature": 0,
            "seed": 0,
            "max_tokens": 9,
        }
    ]


def test_no_reviews_give_no_answers(fake: Fake) -> None:
    assert ask(fake[1], []) == []


@pytest.mark.parametrize("failure", [429, 500, 502, 503, 0])
def test_a_passing_failure_is_tried_again(fake: Fake, failure: int) -> None:
    behaviour, address = fake
    behaviour.statuses = [failure, failure, failure]
    assert [prediction.label for prediction in ask(address, ["好", "差"], concurrency=1)] == [1, 0]
    assert len(behaviour.bodies) == 5


def test_pauses_grow_and_end(fake: Fake, monkeypatch) -> None:
    behaviour, address = fake
    monkeypatch.setattr(connection, "FIRST_PAUSE_S", 0.1)
    behaviour.always_status = 503
    with pytest.raises(EngineError, match=r"HTTP 503, 4 times: status 503 as the test wants"):
        ask(address, ["好"], retry_policy=RetryPolicy(retries=3))
    gaps = [late - early for early, late in zip(behaviour.times, behaviour.times[1:], strict=False)]
    assert len(gaps) == 3
    assert gaps[0] >= 0.1
    assert gaps[1] >= 0.2
    assert gaps[2] >= 0.4


def test_a_server_may_ask_for_a_pause(fake: Fake) -> None:
    behaviour, address = fake
    behaviour.statuses, behaviour.retry_after = [429], "0.4"
    ask(address, ["好"])
    assert behaviour.times[1] - behaviour.times[0] >= 0.4


def test_a_refusal_that_meets_all_ends_at_once(fake: Fake) -> None:
    behaviour, address = fake
    behaviour.always_status = 400
    with pytest.raises(EngineError, match="HTTP 400: status 400 as the test wants"):
        ask(address, ["好"] * 100, concurrency=4)
    assert len(behaviour.bodies) <= 8  # nothing is tried again, and the rest is not asked


def test_a_review_that_is_too_long_gets_no_answer_and_is_told_about(fake: Fake, capfd) -> None:
    with OpenAiEngine(fake[1], "base", BINARY_SENTIMENT) as engine:
        reviews = [Review("好"), Review("好" * 2000, source=Source("shop.csv", 17)), Review("差")]
        predictions = engine.predict(reviews)
    assert [prediction.label for prediction in predictions] == [1, None, 0]
    assert predictions[1].raw == ""
    words = capfd.readouterr().err
    assert "base gave no answer: shop.csv, line 17: This model's maximum context length" in words


def test_connection_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as once:
        port = once.getsockname()[1]
    with pytest.raises(EngineError, match=rf"127.0.0.1:{port}/v1/models: The server cannot .*start the server"):
        ask(f"http://127.0.0.1:{port}", ["好"])


def test_no_access(fake: Fake, monkeypatch) -> None:
    behaviour, address = fake
    behaviour.required_key = "open sesame"
    with pytest.raises(EngineError, match=r"denies access \(HTTP 401: Unauthorized\).*SENTIFACTORY_API_KEY"):
        ask(address, ["好"])
    monkeypatch.setenv("SENTIFACTORY_API_KEY", "open sesame")
    assert ask(address, ["好"])[0].label == 1


def test_unknown_model_lists_what_is_served(fake: Fake) -> None:
    behaviour, address = fake
    behaviour.names = ["qwen", "gemma"]
    with pytest.raises(EngineError, match=r"does not know the model 'base'.*one of qwen, gemma"):
        ask(address, ["好"])


def test_the_only_model_needs_no_name(fake: Fake) -> None:
    behaviour, address = fake
    behaviour.names = ["qwen"]
    with OpenAiEngine(address, None, BINARY_SENTIMENT) as engine:
        assert engine.name == "qwen"
        assert engine.predict([Review("好")])[0].label == 1
    behaviour.names = ["qwen", "gemma"]
    with pytest.raises(EngineError, match=r"one of qwen, gemma"):
        OpenAiEngine(address, None, BINARY_SENTIMENT)


def test_a_model_is_known_by_its_folder_too(fake: Fake, model_folder) -> None:
    behaviour, address = fake
    behaviour.root = str(model_folder)
    with OpenAiEngine(address, str(model_folder), BINARY_SENTIMENT) as engine:
        assert engine.model == "base"


def test_wrong_address(fake: Fake) -> None:
    with pytest.raises(EngineError, match=r"has no OpenAI-compatible API.*http://HOST:PORT/v1"):
        ask(f"{fake[1]}/api/v3", ["好"])


def test_a_page_that_is_no_list_of_models(fake: Fake) -> None:
    fake[0].listing = ["<html>"]
    with pytest.raises(EngineError) as failed:
        ask(fake[1], ["好"])
    assert failed.value.code == "server-address"


@pytest.mark.parametrize(
    ("status", "code"), [(400, "server-refused"), (501, "server-refused"), (500, "server-answer")]
)
def test_a_refusal_that_stays_differs_from_one_that_passes(
    fake: Fake, status: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "FIRST_PAUSE_S", 0.001)
    fake[0].always_status = status
    with pytest.raises(EngineError) as failed:
        ask(fake[1], ["好"])
    assert failed.value.code == code


@pytest.mark.parametrize("address", ["", "localhost:8000", "ftp://host/v1", "http://", "http://host:port/v1"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ConfigError, match="is not a valid address"):
        normalise_address(address)


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("http://h:8000", "http://h:8000/v1"),
        (" http://h:8000/ ", "http://h:8000/v1"),
        ("http://h/v1/chat/completions", "http://h/v1"),
        ("https://h/api/v2/", "https://h/api/v2"),
    ],
)
def test_addresses_are_brought_to_one_form(given: str, base: str) -> None:
    assert normalise_address(given) == base


def test_a_proxy_does_not_stand_before_this_machine(fake: Fake, monkeypatch) -> None:
    for key in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(key, "http://127.0.0.1:9")
    assert ask(fake[1], ["好"])[0].label == 1


def test_it_works_inside_a_running_event_loop(fake: Fake) -> None:
    async def notebook() -> int | None:
        return ask(fake[1], ["好"])[0].label

    assert asyncio.run(notebook()) == 1


def test_a_slow_answer_times_out(fake: Fake) -> None:
    behaviour, address = fake
    behaviour.answer_delay_s = 2
    with pytest.raises(EngineError, match=r"did not answer in time after 2 attempts"):
        ask(address, ["好"], retry_policy=RetryPolicy(timeout_s=0.2, retries=1))


def test_progress_counts_the_reviews(fake: Fake, capfd) -> None:
    ask(fake[1], ["好"] * 5, name="tuned")
    words = capfd.readouterr().err
    assert "Asking tuned: 0/5 reviews" in words
    assert "Asking tuned: 5/5 reviews" in words
