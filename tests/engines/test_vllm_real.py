"""A real vLLM process with the real gemma-3-270m: answers, agreement, repetition, and no survivors."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from sentifactory.engines.openai_api import OpenAiEngine
from sentifactory.engines.transformers import TransformersEngine
from sentifactory.engines.vllm import VllmEngine
from sentifactory.engines.vllm_process import find_vllm_python
from sentifactory.errors import EngineError
from sentifactory.records import Review
from sentifactory.task import BINARY_SENTIMENT, Task

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


def list_titles(processes: list[psutil.Process]) -> list[str]:
    titles = []
    for process in processes:
        try:
            titles.append(" ".join(process.cmdline()))
        except psutil.NoSuchProcess:
            continue
    return titles


def test_kill_9_while_vllm_starts_leaves_nothing(family, start_driver, gemma_checkpoint) -> None:
    driver = start_driver(gemma_checkpoint)
    family.find("EngineCore", within_s=180)
    driver.kill()
    assert driver.wait(5) == -signal.SIGKILL
    family.wait_for(0, within_s=30)


def test_kill_9_while_vllm_answers_leaves_nothing(family, start_driver, gemma_checkpoint) -> None:
    driver = start_driver(gemma_checkpoint)
    assert [driver.stdout.readline().strip(), driver.stdout.readline().strip()] == ["start", "ready"]
    time.sleep(3)
    titles = list_titles(family.list_alive())
    assert any("EngineCore" in title for title in titles), titles
    driver.kill()
    assert driver.wait(5) == -signal.SIGKILL
    family.wait_for(0, within_s=30)


# The tests above start and kill servers of their own; the shared one starts only now, and does not compete.


def test_two_passes_in_another_order_give_the_same_replies(vllm_base: VllmEngine, reviews: list[Review]) -> None:
    reviews = reviews[8:32]  # of both labels
    first = vllm_base.predict(reviews)
    # Other neighbours in the batch, other prompts cached, fewer at once.
    few = OpenAiEngine(vllm_base.address, "base", BINARY_SENTIMENT, concurrency=7)
    second = few.predict(reviews[::-1])[::-1]
    assert [prediction.raw for prediction in second] == [prediction.raw for prediction in first]
    assert all(prediction.raw and prediction.latency_s > 0 for prediction in first)


def test_vllm_and_transformers_say_the_same(
    vllm_base: VllmEngine, gemma_checkpoint: Path, reviews: list[Review]
) -> None:
    # Free words after a half-finished answer: every token is open, so that 16 equal ones are no accident.
    chosen = [Review(f"{review.text}\n请用自己的话再说一遍", review.label) for review in reviews[:6]]
    with TransformersEngine(str(gemma_checkpoint), BINARY_SENTIMENT, name="base") as engine:
        expected = [prediction.raw for prediction in engine.predict(chosen)]
    assert [prediction.raw for prediction in vllm_base.predict(chosen)] == expected


def test_modes_and_engines_agree(vllm_base: VllmEngine, gemma_checkpoint: Path, reviews: list[Review]) -> None:
    """One checkpoint, asked in every way: what may differ is said here.

    The probabilities of two engines differ by rounding. `constrain` and `score` name the same label where the two
    probabilities differ by more than that; of `generate` only replies that parse can be compared.
    """
    chosen = reviews[10:20]  # of both labels
    asked = {
        mode: OpenAiEngine(vllm_base.address, "base", BINARY_SENTIMENT, mode=mode).predict(chosen)
        for mode in ("constrain", "score")
    }
    with TransformersEngine(str(gemma_checkpoint), BINARY_SENTIMENT, name="base", mode="score") as engine:
        expected = engine.predict(chosen)
    free = vllm_base.predict(chosen)
    for constrained, scored, other, said in zip(asked["constrain"], asked["score"], expected, free, strict=True):
        assert scored.log_likelihoods == pytest.approx(other.log_likelihoods, abs=1e-3)
        assert constrained.raw == BINARY_SENTIMENT.render_answer(constrained.label)
        if abs(scored.probabilities[0] - scored.probabilities[1]) > 1e-3:
            assert constrained.label == scored.label == other.label
        if said.raw.startswith(constrained.raw):
            assert said.label in (constrained.label, None)  # what follows may spoil a free reply


def test_labels_of_several_tokens_have_the_same_scores(
    vllm_base: VllmEngine, gemma_checkpoint: Path, reviews: list[Review]
) -> None:
    task = Task("words", ("good", "bad", "mixed"), "情感", ("好评", "非常负面的评价", "说不清楚"), "评论：{text}")
    over_http = OpenAiEngine(vllm_base.address, "base", task, mode="score").predict(reviews[:4])
    with TransformersEngine(str(gemma_checkpoint), task, name="base", mode="score") as engine:
        expected = engine.predict(reviews[:4])
    for scored, other in zip(over_http, expected, strict=True):
        assert scored.log_likelihoods == pytest.approx(other.log_likelihoods, abs=1e-3)


def test_a_review_longer_than_the_model_gets_no_answer(vllm_base: VllmEngine, capfd) -> None:
    predictions = vllm_base.predict([Review("酒店" * 6000), Review("很好")])
    assert predictions[0].label is None
    assert predictions[0].raw == ""
    assert predictions[1].raw
    assert "context length" in capfd.readouterr().err


def test_an_unknown_model_is_refused_with_those_served(vllm_base: VllmEngine) -> None:
    with pytest.raises(EngineError, match=r"does not know the model 'tuned'.*one of base"):
        OpenAiEngine(vllm_base.address, "tuned", BINARY_SENTIMENT)


def test_the_openai_call_of_the_guide_gives_the_label_of_the_service(
    vllm_base: VllmEngine, repo_root: Path, reviews: list[Review], tmp_path: Path
) -> None:
    """The block is taken from the page and run as it stands, but for the address and the review."""
    page = (repo_root / "contexts" / "serving.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert block in (repo_root / "contexts" / "serving_zh.md").read_text(encoding="utf-8")
    texts = [review.text for review in reviews[:4]]
    head, call = block.replace("http://127.0.0.1:8000/v1", vllm_base.address).split("reply =")
    call = ("reply =" + call).replace('"房间干净，服务也好"', "text")
    script = tmp_path / "guide.py"
    script.write_text(f"{head}for text in {texts!r}:\n" + textwrap.indent(call, "    "), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(repo_root / "src")}
    command = [str(find_vllm_python()), str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with OpenAiEngine(vllm_base.address, "base", BINARY_SENTIMENT, mode="score", api_key="none") as service:
        expected = [
            BINARY_SENTIMENT.labels[one.label or 0] for one in service.predict([Review(text) for text in texts])
        ]
    assert done.stdout.split() == expected
