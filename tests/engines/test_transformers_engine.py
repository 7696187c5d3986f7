from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentifactory.engines.base import Mode, split_by_length
from sentifactory.engines.held_engine import HeldEngine
from sentifactory.engines.local.transformers_engine import TransformersEngine
from sentifactory.engines.registry import build_engine
from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review
from sentifactory.task.few_shot import add_examples
from sentifactory.task.task import BINARY_SENTIMENT, Task


@pytest.fixture(scope="module")
def engine(tiny_qwen: Path) -> Iterator[TransformersEngine]:
    import torch

    with TransformersEngine(str(tiny_qwen), BINARY_SENTIMENT, max_new_tokens=8, batch_size=8) as engine:
        # Fresh random weights are so small that every prompt gets the same reply: make them matter.
        with torch.no_grad():
            for name, weight in engine._model.named_parameters():
                if ".layers." in name and weight.ndim == 2:
                    weight.mul_(25)
        yield engine


def test_batches_hold_like_lengths_and_every_position_once() -> None:
    prompts = [[0] * length for length in (5, 1, 9, 3, 7, 9, 2)]
    batches = list(split_by_length(prompts, 3))
    assert batches == [[2, 5, 4], [0, 3, 6], [1]]


@pytest.mark.slow
def test_batching_and_order_do_not_change_the_replies(engine, reviews) -> None:
    reviews = reviews[:24]
    together = [prediction.raw for prediction in engine.predict(reviews)]
    alone = [engine.predict([review])[0].raw for review in reviews[:6]]
    assert together[:6] == alone  # padding on the left is masked
    assert [prediction.raw for prediction in engine.predict(reviews[::-1])][::-1] == together
    assert len(set(together)) > 10  # a random model, but one that reads the review


def test_replies_are_greedy_whatever_the_model_wishes(engine, reviews) -> None:
    import torch

    own = engine._model
    ids = engine._encode(reviews[0])
    expected: list[int] = []
    for _ in range(8):  # greedy decoding as the textbook has it: the likeliest token, one after the other
        with torch.inference_mode():
            best = int(own(torch.tensor([ids + expected])).logits[0, -1].argmax())
        if best in engine._settings.eos_token_id:
            break
        expected.append(best)
    assert engine.predict(reviews[:1])[0].raw == engine._tokenizer.decode(expected, skip_special_tokens=True)
    assert engine._settings.repetition_penalty in (None, 1.0)


@pytest.mark.slow
def test_a_switched_engine_answers_as_a_new_one(tiny_qwen: Path, reviews: list[Review]) -> None:
    asked = reviews[:6]
    shown = add_examples(BINARY_SENTIMENT, [Review("很好", 1), Review("太差", 0)])
    built: list[str] = []
    rounds: list[tuple[Task, Mode]] = [(BINARY_SENTIMENT, "score"), (shown, "score"), (BINARY_SENTIMENT, "generate")]

    def build() -> TransformersEngine:
        built.append("tiny")
        return TransformersEngine(str(tiny_qwen), BINARY_SENTIMENT, name="score", mode="score")

    with HeldEngine() as held:
        found = []
        for task, mode in rounds:
            with held.lend(("transformers", "tiny"), build, task, mode=mode, name=mode) as engine:
                found.append([(one.label, one.raw, one.probabilities) for one in engine.predict(asked)])
                assert engine.name == mode
    assert built == ["tiny"]
    assert len({str(answers) for answers in found}) == 3
    for (task, mode), answers in zip(rounds, found, strict=True):
        with TransformersEngine(str(tiny_qwen), task, mode=mode) as engine:
            assert [(one.label, one.raw, one.probabilities) for one in engine.predict(asked)] == answers


def test_no_reviews_give_no_answers(engine) -> None:
    assert engine.predict([]) == []


def test_the_prompt_is_the_chat_template_with_the_tasks_words(engine) -> None:
    words = engine._tokenizer.decode(engine._encode(Review("还行")))
    assert BINARY_SENTIMENT.render_prompt("还行") in words
    assert words.endswith("<|im_start|>assistant\n")


@pytest.mark.slow
def test_loading_shows_no_bar_but_ours(tiny_qwen: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    logging.enable_progress_bar()  # a training run in this process may have switched them off
    build_engine("transformers", str(tiny_qwen), BINARY_SENTIMENT).close()
    shown = capfd.readouterr()
    assert not shown.out
    assert "Loading" in shown.err
    assert "\r" not in shown.err
    assert logging.is_progress_bar_enabled()


def test_a_folder_that_is_no_model_is_refused(model_folder) -> None:
    with pytest.raises(EngineError, match=r"The model cannot be loaded"):
        build_engine("transformers", str(model_folder), BINARY_SENTIMENT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "positions", "times"), [("generate", 128, 100), ("score", 128, 100), ("score", 32768, 5000)]
)
def test_a_review_beyond_the_models_positions_or_vllms_limit_gets_no_answer(
    tiny_qwen: Path, tmp_path: Path, mode: Mode, positions: int, times: int
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_qwen, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": positions}))
    reviews = [Review("很好"), Review("房间干净" * times), Review("太差")]
    told: dict[int, Prediction] = {}
    with TransformersEngine(str(model), BINARY_SENTIMENT, mode=mode) as engine:
        answers = engine.predict(reviews, told.__setitem__)
        alone = engine.predict([reviews[0], reviews[2]])
        assert engine.predict([reviews[1]]) == [Prediction(None)]
    assert answers[1] == Prediction(None)
    assert [(one.label, one.raw) for one in (answers[0], answers[2])] == [(one.label, one.raw) for one in alone]
    assert told == dict(enumerate(answers))


@pytest.mark.slow
@pytest.mark.parametrize(
    "template", ["{{ x", "{{ raise_exception('no') }}", "{% for a in b %}\0", "{{ 1 / 0 }}", "{{ a.b.c }}"]
)
def test_a_template_that_cannot_be_used_is_refused(tiny_qwen: Path, tmp_path: Path, template: str) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_qwen, model)
    for name in ("tokenizer_config.json",):
        settings = json.loads((model / name).read_text(encoding="utf-8"))
        (model / name).write_text(json.dumps({**settings, "chat_template": template}), encoding="utf-8")
    (model / "chat_template.jinja").write_text(template, encoding="utf-8")
    with pytest.raises(EngineError):
        build_engine("transformers", str(model), BINARY_SENTIMENT)


@pytest.mark.slow
def test_a_tokenizer_that_no_library_reads_is_refused(tiny_qwen: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_qwen, model)
    content = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    (model / "tokenizer.json").write_text(json.dumps({**content, "version": "9.0"}), encoding="utf-8")
    with pytest.raises(EngineError):
        build_engine("transformers", str(model), BINARY_SENTIMENT)
