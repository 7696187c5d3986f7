"""A vLLM that ends while it answers is started again, up to a limit, and nothing is asked twice or lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from process_family import list_arguments

from sentifactory.engines.base import ServerEndedError
from sentifactory.engines.openai import connection
from sentifactory.engines.openai.connection import RetryPolicy
from sentifactory.engines.openai.openai_engine import OpenAiEngine
from sentifactory.engines.vllm.start_vllm import VllmOptions
from sentifactory.engines.vllm.vllm_engine import VllmEngine
from sentifactory.records import Prediction, Review
from sentifactory.task.task import BINARY_SENTIMENT

TEXTS = [f"{word}{number}" for number in range(20) for word in "好差乱"]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_PAUSE_S", 0.05)


@pytest.mark.slow
def test_a_server_that_dies_once_is_started_again(
    tmp_path: Path, fake_vllm: Callable[..., None], model_folder: Path, capfd
) -> None:
    fake_vllm(dies_after_requests=25, lives=str(tmp_path / "lives"), answer_delay_s=0.02)
    told: list[tuple[int, Prediction]] = []
    with VllmEngine(str(model_folder), BINARY_SENTIMENT, name="base", concurrency=4) as engine:
        predictions = engine.predict([Review(text) for text in TEXTS], lambda *answer: told.append(answer))
    assert [prediction.label for prediction in predictions] == [1, 0, None] * 20
    assert sorted(position for position, _ in told) == list(range(60))  # each once
    assert (tmp_path / "lives").read_text() == "xx"
    words = capfd.readouterr().err
    assert "fake engine fell over" in words
    assert "Restarting it" in words


@pytest.mark.slow
def test_a_server_that_dies_again_and_again_is_given_up(
    tmp_path: Path, fake_vllm: Callable[..., None], model_folder: Path
) -> None:
    fake_vllm(dies_after_requests=5)
    options = VllmOptions(max_restarts=1)
    with VllmEngine(str(model_folder), BINARY_SENTIMENT, options=options, concurrency=1) as engine:
        engine.predict([Review(text) for text in TEXTS[:12]])  # five answers a life: each restart bears fruit
    fake_vllm(dies_after_requests=1)
    with (
        VllmEngine(str(model_folder), BINARY_SENTIMENT, mode="constrain", options=options) as engine,  # its canary
        pytest.raises(ServerEndedError, match="ended while it was answering"),
    ):
        engine.predict([Review("好")])


@pytest.mark.slow
def test_a_server_that_dies_between_two_rounds_is_started_again(
    tmp_path: Path, fake_vllm: Callable[..., None], model_folder: Path, capfd
) -> None:
    fake_vllm(lives=str(tmp_path / "lives"))
    with VllmEngine(str(model_folder), BINARY_SENTIMENT, name="base") as engine:
        engine.switch_to(BINARY_SENTIMENT, mode="generate", name="again")
        assert (tmp_path / "lives").read_text() == "x", "one that lives stays"
        started = psutil.Process().children(recursive=True)
        servers = [
            one for one, words in list_arguments(started) if any("fake_openai_server" in word for word in words)
        ]
        for one in servers:
            one.kill()
        psutil.wait_procs(servers)
        engine.switch_to(BINARY_SENTIMENT, mode="generate", name="written")
        assert [one.label for one in engine.predict([Review(text) for text in TEXTS[:3]])] == [1, 0, None]
    assert (tmp_path / "lives").read_text() == "xx"
    assert "Restarting it" in capfd.readouterr().err


def test_a_watched_server_is_given_all_the_time_it_needs(fake, monkeypatch) -> None:
    behaviour, address = fake
    monkeypatch.setattr(connection, "WATCHED_PAUSE_S", 0.05)
    behaviour.statuses = [0] * 12  # far more broken connections than retries
    retry_policy = RetryPolicy(retries=1, timeout_s=None, silence_s=60.0)
    with OpenAiEngine(address, "base", BINARY_SENTIMENT, retry_policy=retry_policy) as engine:
        assert engine.predict([Review("好")])[0].label == 1


def test_a_watched_server_that_says_nothing_is_given_up(fake, monkeypatch) -> None:
    behaviour, address = fake
    behaviour.answer_delay_s = 5.0
    monkeypatch.setattr(connection, "WATCH_EVERY_S", 0.05)
    retry_policy = RetryPolicy(timeout_s=None, silence_s=0.5)
    engine = OpenAiEngine(address, "base", BINARY_SENTIMENT, retry_policy=retry_policy)
    with pytest.raises(ServerEndedError, match="has not answered for"):
        engine.predict([Review("好")])


def test_a_watched_server_that_refuses_connections_is_ending(fake) -> None:
    _, address = fake
    retry_policy = RetryPolicy(timeout_s=None, silence_s=60.0, refusal_s=0.3)
    engine = OpenAiEngine(address, "base", BINARY_SENTIMENT, retry_policy=retry_policy)
    engine._server = replace(engine._server, address="http://127.0.0.1:9/v1")
    with pytest.raises(ServerEndedError, match="The server cannot be reached"):
        engine.predict([Review("好")])
