"""A replica of `label --engine ray` asks another server while its own fails."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
from fake_openai_server import Behaviour, serve_fake

from sentifactory.engines.openai import connection
from sentifactory.errors import EngineError
from sentifactory.records import Review
from sentifactory.serving.backends.model_loading import ModelChoice
from sentifactory.serving.labelling import ray_labelling
from sentifactory.serving.labelling.ray_labelling import ReplicaEngine, Replicas, check_servers
from sentifactory.task.task import BINARY_SENTIMENT

REVIEWS = [Review(f"第{number}条，{'很好' if number % 2 else '很差'}") for number in range(6)]


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[Behaviour], Replicas]]:
    monkeypatch.setattr(connection, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(ray_labelling, "_PAUSE_S", 0.01)
    behaviours = [Behaviour(), Behaviour()]
    with ExitStack() as stack:
        urls = tuple(stack.enter_context(serve_fake(one)) for one in behaviours)
        yield behaviours, Replicas(ModelChoice("base", vllm_url=urls[0]), BINARY_SENTIMENT, "base", 2, urls)


def ask(replicas: Replicas, replica: int = 0) -> ReplicaEngine:
    return ReplicaEngine(replicas.list_choices(replica), replicas.task, replicas.name)


def test_each_replica_asks_its_own_server_first(servers: tuple[list[Behaviour], Replicas]) -> None:
    (first, second), replicas = servers
    answers = ask(replicas, 0).predict(REVIEWS)
    assert not second.bodies
    n_first = len(first.bodies)
    assert [one.probabilities for one in ask(replicas, 3).predict(REVIEWS)] == [one.probabilities for one in answers]
    assert len(first.bodies) == n_first


def test_while_a_server_fails_another_one_is_asked(
    servers: tuple[list[Behaviour], Replicas], monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, second), replicas = servers
    engine = ask(replicas)
    answers = engine.predict(REVIEWS)
    first.always_status = 500
    assert [one.probabilities for one in engine.predict(REVIEWS)] == [one.probabilities for one in answers]
    n_first = len(first.bodies)
    engine.predict(REVIEWS)
    assert len(first.bodies) == n_first, "it is left alone for a while"
    first.always_status = 0
    monkeypatch.setattr(ray_labelling, "ASK_AGAIN_S", 0.0)
    n_second = len(second.bodies)
    engine.predict(REVIEWS)
    assert len(first.bodies) > n_first
    assert len(second.bodies) == n_second


def test_all_are_waited_for_and_not_for_ever(
    servers: tuple[list[Behaviour], Replicas], monkeypatch: pytest.MonkeyPatch
) -> None:
    behaviours, replicas = servers
    engine = ask(replicas)
    for one in behaviours:
        one.statuses = [503] * 20
    assert len(engine.predict(REVIEWS)) == len(REVIEWS)
    for one in behaviours:
        one.always_status = 503
    monkeypatch.setattr(ray_labelling, "GIVE_UP_S", 0.2)
    began_at = time.monotonic()
    with pytest.raises(EngineError) as failed:
        engine.predict(REVIEWS)
    assert failed.value.code == "server-answer"
    assert time.monotonic() - began_at >= 0.2


def test_what_stays_is_not_waited_for(servers: tuple[list[Behaviour], Replicas]) -> None:
    (first, second), replicas = servers
    first.required_key = "another"
    with pytest.raises(EngineError) as failed:
        ask(replicas).predict(REVIEWS)
    assert failed.value.code == "server-access"
    assert not second.bodies


@pytest.fixture
def free_address() -> str:
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("place", [0, 1])
def test_a_server_that_is_down_at_the_start_is_announced_and_done_without(
    servers: tuple[list[Behaviour], Replicas], free_address: str, place: int, capsys: pytest.CaptureFixture[str]
) -> None:
    behaviours, replicas = servers
    urls = tuple(free_address if number == place else url for number, url in enumerate(replicas.urls))
    one_down = replace(replicas, urls=urls)
    check_servers(one_down)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert free_address in lines[0]
    assert [choice.vllm_url for choice in one_down.list_choices()] == [*urls]
    assert len(ask(one_down, place).predict(REVIEWS)) == len(REVIEWS)
    assert not behaviours[place].bodies


@pytest.mark.parametrize("settings", [{"always_status": 503}, {"is_loading": True}])
def test_a_server_that_answers_5xx_at_the_start_is_announced(
    servers: tuple[list[Behaviour], Replicas], settings: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    (first, second), replicas = servers
    for name, value in settings.items():
        setattr(first, name, value)
    check_servers(replicas)
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert len(ask(replicas).predict(REVIEWS)) == len(REVIEWS)
    assert second.bodies


def test_servers_that_can_all_be_asked_are_not_announced(
    servers: tuple[list[Behaviour], Replicas], capsys: pytest.CaptureFixture[str]
) -> None:
    check_servers(servers[1])
    assert capsys.readouterr().err == ""


def test_without_any_server_the_first_error_is_raised_at_once(
    servers: tuple[list[Behaviour], Replicas], free_address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (_, second), replicas = servers
    second.is_loading = True
    with pytest.raises(EngineError) as failed:
        check_servers(replace(replicas, urls=(free_address, replicas.urls[1])))
    assert failed.value.code == "server-unreachable"
    assert free_address in failed.value.where
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"required_key": "another"}, "server-access"),
        ({"names": ["another"]}, "server-model"),
        ({"listing": ["<html>"]}, "server-address"),
        ({"always_status": 400}, "server-mode"),
    ],
)
def test_a_reason_that_stays_refuses_at_the_start_whatever_the_others_do(
    servers: tuple[list[Behaviour], Replicas], free_address: str, settings: dict, code: str, is_first: bool
) -> None:
    (first, _), replicas = servers
    for name, value in settings.items():
        setattr(first, name, value)
    wrong = replicas.urls[0]
    urls = (wrong, free_address) if is_first else (free_address, wrong)
    for order in (urls, (*urls, replicas.urls[1])):
        with pytest.raises(EngineError) as failed:
            check_servers(replace(replicas, urls=order))
        assert failed.value.code == code
        assert failed.value.where.startswith(wrong)


def test_a_server_that_loads_its_model_is_waited_for(servers: tuple[list[Behaviour], Replicas]) -> None:
    """One that was started again, while the others do the work."""
    (first, second), replicas = servers
    first.is_loading = True
    assert len(ask(replicas).predict(REVIEWS)) == len(REVIEWS)
    assert second.bodies


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (
            ["KeyError: 'a'", "sentifactory.errors.EngineError: http://a: No key.", "To change retries, …"],
            "http://a: No key.",
        ),
        (["The actor died.", "Its process was killed.", ""], "Its process was killed."),
        ([], "RuntimeError"),
    ],
)
def test_the_error_of_a_replica_is_found_among_those_of_ray(lines: list[str], cause: str) -> None:
    assert ray_labelling._find_cause(RuntimeError("\n".join(lines))) == cause
