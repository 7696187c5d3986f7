"""A real llama.cpp server with a tiny model that was taught the task's answers, against transformers with the same."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from three_words import THREE_WORDS
from tiny_gguf import HAS_LLAMA_CPP, N_CONTEXT, WITHOUT_LLAMA_CPP, serve_gguf, write_small_gguf

from sentifactory.engines.local.transformers_engine import TransformersEngine
from sentifactory.engines.openai.chat_score_mode import ChatScoreMode
from sentifactory.engines.openai.openai_engine import OpenAiEngine
from sentifactory.engines.openai.token_routes import NoTokensError, TokenRoutes
from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review
from sentifactory.task.task import BINARY_SENTIMENT, Task

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not HAS_LLAMA_CPP, reason=WITHOUT_LLAMA_CPP)]

TAUGHT = {"很好，房间干净，值得购买": 1, "太差了，再也不来": 0}
N_STEPS = 120
ROUNDING = 0.01  # llama.cpp keeps keys and values in float16


@pytest.fixture(scope="module")
def taught(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Qwen2, which has learned to answer in the form of the task, and two reviews."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("taught") / "model"
    shutil.copytree(tiny_qwen, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    rows = []
    for text, label in TAUGHT.items():
        asked = BINARY_SENTIMENT.render_messages(text)
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
        answer = BINARY_SENTIMENT.render_answer(label) + "<|im_end|>"
        rows.append([tokenizer(part, add_special_tokens=False)["input_ids"] for part in (prompt, answer)])
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(N_STEPS):
        for prompt, answer in rows:
            logits = model(torch.tensor([prompt + answer]), logits_to_keep=len(answer) + 1).logits[0, :-1]
            torch.nn.functional.cross_entropy(logits, torch.tensor(answer)).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    write_small_gguf(folder)
    return folder


@pytest.fixture(scope="module")
def address(taught: Path) -> Iterator[str]:
    with serve_gguf(taught / "model-f16.gguf") as served:
        yield served


@pytest.fixture
def without_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask as a server without token ids is asked: Ollama runs llama.cpp's server, and hides these routes of it."""

    async def find_nothing(*_: object) -> None:
        raise NoTokensError("hidden by the test")

    monkeypatch.setattr(TokenRoutes, "find", find_nothing)


def ask(address: str, mode: str, reviews: list[Review], task: Task = BINARY_SENTIMENT) -> list[Prediction]:
    with OpenAiEngine(address, None, task, mode=mode) as engine:
        return engine.predict(reviews)


@pytest.mark.parametrize("mode", ["generate", "constrain", "score"])
def test_it_answers_as_transformers_does(address: str, taught: Path, reviews: list[Review], mode: str) -> None:
    some = [*map(Review, TAUGHT), *reviews[:10]]
    with TransformersEngine(str(taught), BINARY_SENTIMENT, mode=mode) as engine:
        expected = engine.predict(some)
    found = ask(address, mode, some)
    assert [one.label for one in found] == [one.label for one in expected]
    assert [one.label for one in found[:2]] == list(TAUGHT.values())
    if mode == "score":
        for one, other in zip(found, expected, strict=True):
            assert one.log_likelihoods == pytest.approx(other.log_likelihoods, abs=ROUNDING)


def test_scores_of_chat_completions_are_those_of_token_ids(
    address: str, reviews: list[Review], request: pytest.FixtureRequest
) -> None:
    expected = ask(address, "score", reviews[:10])
    request.getfixturevalue("without_tokens")
    with OpenAiEngine(address, None, BINARY_SENTIMENT, mode="score") as engine:
        assert isinstance(engine._asker, ChatScoreMode)
        found = engine.predict(reviews[:10])
    for one, other in zip(found, expected, strict=True):
        assert one.label == other.label
        assert one.log_likelihoods == pytest.approx(other.log_likelihoods, abs=ROUNDING)


def test_labels_that_the_server_does_not_list_are_scored_exactly(
    address: str, taught: Path, reviews: list[Review]
) -> None:
    """The model was not taught these words: their tokens are far from the likeliest five."""
    with TransformersEngine(str(taught), THREE_WORDS, mode="score") as engine:
        expected = engine.predict(reviews[:1])
    for one, other in zip(ask(address, "score", reviews[:1], THREE_WORDS), expected, strict=True):
        assert one.log_likelihoods == pytest.approx(other.log_likelihoods, abs=ROUNDING)
        assert max(other.log_likelihoods) < math.log(1e-4)


def test_an_answer_in_another_form_is_not_scored(address: str, reviews: list[Review], without_tokens: None) -> None:
    """Constrained to words that it was not taught, the model splits them into other tokens from review to review."""
    assert ask(address, "score", reviews[:1], THREE_WORDS)[0].label is None


def test_a_review_that_is_too_long_fails_alone(address: str) -> None:
    some = [Review("很好"), Review("很好，房间干净。" * N_CONTEXT), Review("太差了")]
    for mode in ("score", "constrain"):
        assert [one.label is None for one in ask(address, mode, some)] == [False, True, False]


def test_a_model_is_known_by_the_folder_of_its_file(address: str, taught: Path, tmp_path: Path) -> None:
    with OpenAiEngine(address, str(taught), BINARY_SENTIMENT, mode="score") as engine:
        assert engine.predict([Review("很好")])[0].label is not None
    # Another export has a file of the same name.
    (tmp_path / "model-f16.gguf").touch()
    with pytest.raises(EngineError) as refused:
        OpenAiEngine(address, str(tmp_path), BINARY_SENTIMENT, mode="score")
    assert refused.value.code == "server-model"
