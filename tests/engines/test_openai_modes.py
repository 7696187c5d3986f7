"""Modes `constrain` and `score` against servers that keep to what they are told, and against those that do not."""

from __future__ import annotations

import asyncio
import json
import math

import pytest
from fake_openai_server import Behaviour, next_logprobs
from three_words import THREE_WORDS

from sentifactory.engines.openai import connection
from sentifactory.engines.openai.openai_engine import OpenAiEngine
from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review
from sentifactory.task.task import BINARY_SENTIMENT, Task

Fake = tuple[Behaviour, str]

# One label is the beginning of another: only what follows it says that it is over.
NESTED_WORDS = Task("nested", ("good", "review"), "k", ("好", "好评"), "评论：{text}")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_PAUSE_S", 0.01)


def ask(address: str, mode: str, texts: list[str], task: Task = BINARY_SENTIMENT, **more: object) -> list[Prediction]:
    with OpenAiEngine(address, "base", task, mode=mode, **more) as engine:
        return engine.predict([Review(text) for text in texts])


def expect_likelihoods(task: Task, text: str, parts: list[tuple[str, str]]) -> list[float]:
    """Brute force: multiply the probabilities of each label's own characters, one after the other."""
    expected = []
    for lead, own in parts:
        ids = [2, *map(ord, task.render_prompt(text)), 3, *map(ord, lead)]
        total = 0.0
        for letter in own:
            total += next_logprobs(ids)[ord(letter)]
            ids.append(ord(letter))
        expected.append(total)
    return expected


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("field", ["structured_outputs", "guided_choice", "response_format"])
def test_the_form_that_a_server_enforces_is_found(fake: Fake, field: str, refuses: bool) -> None:
    behaviour, address = fake
    behaviour.constraint, behaviour.refuses_unknown_fields = field, refuses
    predictions = ask(address, "constrain", ["好", "差", "乱"])
    # Free decoding says nothing clear about the third.
    assert [prediction.label for prediction in predictions] == [1, 0, 1]
    assert field in behaviour.bodies[-1]
    assert "zq" not in json.dumps(behaviour.bodies[-1])


@pytest.mark.parametrize("refuses", [False, True])
def test_a_server_that_ignores_the_constraint_is_found_out_before_the_first_review(fake: Fake, refuses: bool) -> None:
    behaviour, address = fake
    behaviour.constraint, behaviour.refuses_unknown_fields = "nothing", refuses
    with pytest.raises(EngineError) as refused:
        ask(address, "constrain", ["好"])
    assert refused.value.code == "server-mode"
    assert len(behaviour.bodies) == 3  # one canary for each form, and no review


def test_a_server_that_stops_to_enforce_ends_the_run(fake: Fake) -> None:
    behaviour, address = fake
    behaviour.breaks_constraint_after = 2
    with pytest.raises(EngineError, match=r"replied '乱……', which is not one of the answers"):
        ask(address, "constrain", ["好", "乱"], concurrency=1)


def test_long_answers_have_room(fake: Fake) -> None:
    task = Task("long", ("a", "b"), "k", ("x" * 200, "y" * 200), "评论：{text}")
    assert ask(fake[1], "constrain", ["好"], task)[0].label == 1
    assert fake[0].bodies[-1]["max_tokens"] > 200


@pytest.mark.parametrize("knows_token_ids", [True, False])
def test_scores_are_those_of_brute_force(fake: Fake, knows_token_ids: bool) -> None:
    behaviour, address = fake
    behaviour.knows_token_ids = knows_token_ids  # False: our tokens are seldom among the likeliest five
    texts = [f"第{number}家" for number in range(6)]
    parts = [('{"sentiment": ', "0"), ('{"sentiment": ', "1")]
    for text, prediction in zip(texts, ask(address, "score", texts), strict=True):
        expected = expect_likelihoods(BINARY_SENTIMENT, text, parts)
        assert prediction.log_likelihoods == pytest.approx(expected, abs=1e-9)
        assert sum(prediction.probabilities) == pytest.approx(1)
        assert prediction.probabilities[1] == pytest.approx(1 / (1 + math.exp(expected[0] - expected[1])))
        assert prediction.label == expected.index(max(expected))
        assert prediction.latency_s > 0


@pytest.mark.parametrize("knows_token_ids", [True, False])
def test_labels_of_several_tokens_and_unlike_lengths_are_scored_as_a_whole(fake: Fake, knows_token_ids: bool) -> None:
    fake[0].knows_token_ids = knows_token_ids
    texts = [f"第{number}家" for number in range(6)]
    lead = '{"情感": "'
    parts = [(lead, "好评"), (lead, "负面的"), (lead, "一般")]
    for text, prediction in zip(texts, ask(fake[1], "score", texts, THREE_WORDS), strict=True):
        expected = expect_likelihoods(THREE_WORDS, text, parts)
        assert prediction.log_likelihoods == pytest.approx(expected, abs=1e-9)
        assert prediction.label == expected.index(max(expected))


def test_a_label_that_begins_another_is_scored_with_its_end(fake: Fake) -> None:
    prediction = ask(fake[1], "score", ["还行"], NESTED_WORDS)[0]
    expected = expect_likelihoods(NESTED_WORDS, "还行", [('{"k": "好', '"'), ('{"k": "好', '评"')])
    assert prediction.log_likelihoods == pytest.approx(expected, abs=1e-9)


def test_the_requests_of_a_review_do_not_queue_behind_those_that_came_later(fake: Fake) -> None:
    behaviour, address = fake
    with OpenAiEngine(address, "base", BINARY_SENTIMENT, mode="score", concurrency=1) as engine:
        behaviour.bodies.clear()

        async def ask_three() -> None:
            async with engine.connect() as ask_one:
                await asyncio.gather(*(ask_one(Review(text)) for text in ("好", "差", "一般")))

        asyncio.run(ask_three())
    is_tokenizing = ["messages" in body for body in behaviour.bodies]
    assert is_tokenizing == [True, False] * 3


def test_a_server_without_tokenizer_or_probabilities_is_refused_before_the_first_review(fake: Fake) -> None:
    behaviour, address = fake
    behaviour.has_tokenizer = False
    with pytest.raises(EngineError) as refused:
        ask(address, "score", ["好"])
    assert refused.value.code == "server-mode"
    behaviour.has_tokenizer, behaviour.knows_token_ids, behaviour.gives_prompt_logprobs = True, False, False
    with pytest.raises(EngineError) as refused:
        ask(address, "score", ["好"])
    assert refused.value.code == "server-mode"
    assert not any("好" in str(body.get("messages")) for body in behaviour.bodies)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["generate", "constrain", "score"])
def test_order_and_concurrency_change_nothing(fake: Fake, mode: str) -> None:
    texts = [f"{word}{number}" for number in range(20) for word in "好差乱"]
    told: dict[int, Prediction] = {}
    with OpenAiEngine(fake[1], "base", BINARY_SENTIMENT, mode=mode, concurrency=8) as engine:
        together = engine.predict([Review(text) for text in texts], told.__setitem__)
    assert told == dict(enumerate(together))
    backwards = ask(fake[1], mode, texts[::-1], concurrency=1)[::-1]
    assert [(p.label, p.raw, p.log_likelihoods) for p in together] == [
        (p.label, p.raw, p.log_likelihoods) for p in backwards
    ]
