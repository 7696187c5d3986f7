from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentifactory.engines.base import Mode
from sentifactory.engines.registry import build_engine
from sentifactory.engines.transformers import TransformersEngine, split_by_length
from sentifactory.errors import EngineError
from sentifactory.records import Prediction, Review
from sentifactory.task import BINARY_SENTIMENT


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


def test_no_reviews_give_no_answers(engine) -> None:
    assert engine.predict([]) == []


def test_the_prompt_is_the_chat_template_with_the_tasks_words(engine) -> None:
    words = engine._tokenizer.decode(engine._encode(Review("还行")))
    assert BINARY_SENTIMENT.render_prompt("还行") in words
    assert words.endswith("<|im_start|>assistant\n")


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


@pytest.mark.parametrize("mode", ["generate", "score"])
def test_a_review_beyond_the_models_positions_gets_no_answer(tiny_qwen: Path, tmp_path: Path, mode: Mode) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_qwen, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 128}))
    reviews = [Review("很好"), Review("房间干净" * 100), Review("太差")]
    told: dict[int, Prediction] = {}
    with TransformersEngine(str(model), BINARY_SENTIMENT, mode=mode) as engine:
        answers = engine.predict(reviews, told.__setitem__)
        alone = engine.predict([reviews[0], reviews[2]])
        assert engine.predict([reviews[1]]) == [Prediction(None)]
    assert answers[1] == Prediction(None)
    assert [(one.label, one.raw) for one in (answers[0], answers[2])] == [(one.label, one.raw) for one in alone]
    assert told == dict(enumerate(answers))
