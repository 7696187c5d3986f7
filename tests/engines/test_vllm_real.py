"""A real vLLM process with the real gemma-3-270m: answers, agreement, repetition, and no survivors."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from process_family import DrivenVllm, list_arguments

from sentifactory.engines.local.transformers_engine import TransformersEngine
from sentifactory.engines.openai.openai_engine import OpenAiEngine
from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review
from sentifactory.task.task import BINARY_SENTIMENT, Task

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


def ask(served: DrivenVllm, reviews: list[Review], task: Task = BINARY_SENTIMENT, **options: Any) -> list[Prediction]:
    with OpenAiEngine(served.address, "base", task, api_key=served.key, **options) as engine:
        return engine.predict(reviews)


def list_titles(processes: list[psutil.Process]) -> list[str]:
    return [" ".join(words) for _, words in list_arguments(processes)]


def test_kill_9_while_vllm_starts_leaves_nothing(family, start_driver, gemma_checkpoint) -> None:
    """With a server of its own; the others share one, which starts when this one is gone and does not compete."""
    driver = start_driver(gemma_checkpoint)
    family.find("EngineCore", within_s=600, pause_s=0.5)
    driver.kill()
    assert driver.wait(30) == -signal.SIGKILL
    family.wait_for(0, within_s=30)


def test_two_passes_in_another_order_give_the_same_replies(vllm_base: DrivenVllm, reviews: list[Review]) -> None:
    reviews = reviews[8:32]  # of both labels
    first = ask(vllm_base, reviews)
    # Other neighbours in the batch, other prompts cached, fewer at once.
    second = ask(vllm_base, reviews[::-1], concurrency=7)[::-1]
    assert [prediction.raw for prediction in second] == [prediction.raw for prediction in first]
    assert all(prediction.raw and prediction.latency_s > 0 for prediction in first)


def test_vllm_and_transformers_say_the_same(
    vllm_base: DrivenVllm, gemma_checkpoint: Path, reviews: list[Review]
) -> None:
    # Free words after a half-finished answer: every token is open, so that 16 equal ones are no accident.
    chosen = [Review(f"{review.text}\n请用自己的话再说一遍", review.label) for review in reviews[:6]]
    with TransformersEngine(str(gemma_checkpoint), BINARY_SENTIMENT, name="base") as engine:
        expected = [prediction.raw for prediction in engine.predict(chosen)]
    assert [prediction.raw for prediction in ask(vllm_base, chosen)] == expected


def test_modes_and_engines_agree(vllm_base: DrivenVllm, gemma_checkpoint: Path, reviews: list[Review]) -> None:
    """One checkpoint, asked in every way: what may differ is said here.

    The probabilities of two engines differ by rounding. `constrain` and `score` name the same label where the two
    probabilities differ by more than that; of `generate` only replies that parse can be compared.
    """
    chosen = reviews[10:20]  # of both labels
    asked = {mode: ask(vllm_base, chosen, mode=mode) for mode in ("constrain", "score")}
    with TransformersEngine(str(gemma_checkpoint), BINARY_SENTIMENT, name="base", mode="score") as engine:
        expected = engine.predict(chosen)
    free = ask(vllm_base, chosen)
    for constrained, scored, other, said in zip(asked["constrain"], asked["score"], expected, free, strict=True):
        assert scored.log_likelihoods == pytest.approx(other.log_likelihoods, abs=1e-3)
        assert constrained.raw == BINARY_SENTIMENT.render_answer(constrained.label)
        if abs(scored.probabilities[0] - scored.probabilities[1]) > 1e-3:
            assert constrained.label == scored.label == other.label
        if said.raw.startswith(constrained.raw):
            assert said.label in (constrained.label, None)  # what follows may spoil a free reply


def test_labels_of_several_tokens_have_the_same_scores(
    vllm_base: DrivenVllm, gemma_checkpoint: Path, reviews: list[Review]
) -> None:
    task = Task("words", ("good", "bad", "mixed"), "情感", ("好评", "非常负面的评价", "说不清楚"), "评论：{text}")
    over_http = ask(vllm_base, reviews[:4], task, mode="score")
    with TransformersEngine(str(gemma_checkpoint), task, name="base", mode="score") as engine:
        expected = engine.predict(reviews[:4])
    for scored, other in zip(over_http, expected, strict=True):
        assert scored.log_likelihoods == pytest.approx(other.log_likelihoods, abs=1e-3)


def test_a_review_longer_than_the_model_gets_no_answer(vllm_base: DrivenVllm, capfd) -> None:
    predictions = ask(vllm_base, [Review("酒店" * 6000), Review("很好")])
    assert predictions[0].label is None
    assert predictions[0].raw == ""
    assert predictions[1].raw
    assert "context length" in capfd.readouterr().err


def test_without_its_key_nobody_is_answered(vllm_base: DrivenVllm) -> None:
    for headers in ({}, {"Authorization": "Bearer none"}):
        assert httpx.get(f"{vllm_base.address}/models", headers=headers, trust_env=False).status_code == 401
    assert not any(vllm_base.key in title for title in list_titles(vllm_base.family.list_alive()))


def test_an_unknown_model_is_refused_with_those_served(vllm_base: DrivenVllm) -> None:
    with pytest.raises(EngineError, match=r"does not know the model 'tuned'.*one of base"):
        OpenAiEngine(vllm_base.address, "tuned", BINARY_SENTIMENT, api_key=vllm_base.key)
