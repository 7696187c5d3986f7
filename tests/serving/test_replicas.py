"""A replica of `label --engine ray` asks another server while its own fails."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from fake_openai_server import Behaviour, serve_fake

from sentifactory.engines.openai import connection
from sentifactory.errors import EngineError
from sentifactory.records import Review
from sentifactory.serving.backends.model_loading import ModelChoice
from sentifactory.serving.labelling import ray_labelling
from sentifactory.serving.labelling.ray_labelling import ReplicaEngine, Replicas
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
