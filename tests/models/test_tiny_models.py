"""The tiny models of the test suite stand on the real vocabularies."""

from pathlib import Path
from typing import Any

import pytest
from original_ids import assert_same_ids

from sentifactory.task.task import TASKS
from tools.benches.qwen_shape import QWEN_SYSTEM


@pytest.fixture(scope="module")
def qwen_tokenizer(tiny_qwen: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_qwen)


@pytest.mark.slow
def test_tiny_qwen_has_the_ids_of_the_original_tokenizer(qwen_tokenizer: Any) -> None:
    assert_same_ids(qwen_tokenizer, "qwen2_5")
    assert qwen_tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|file_sep|>"]) == [
        151643,
        151644,
        151645,
        151664,
    ]


@pytest.mark.parametrize("system", [None, "你是评论分析助手。"])
def test_tiny_qwens_chat_template_gives_llamafactorys_ids(qwen_tokenizer: Any, system: str | None) -> None:
    from llamafactory.data.template import TEMPLATES

    opening = [] if system is None else [{"role": "system", "content": system}]
    for task in TASKS.values():
        messages = task.render_messages("房间很干净 ok\n下次还来！", 1)
        prompt_ids, answer_ids = TEMPLATES["qwen"].encode_oneturn(qwen_tokenizer, messages, system=system)
        asked = qwen_tokenizer.apply_chat_template(opening + messages[:1], add_generation_prompt=True)["input_ids"]
        answered = qwen_tokenizer.apply_chat_template(opening + messages)["input_ids"]
        assert list(asked) == prompt_ids
        assert list(answered) == prompt_ids + answer_ids
        assert (system or QWEN_SYSTEM) in qwen_tokenizer.decode(asked)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_gemma", "tiny_qwen"])
def test_tiny_models_load_and_speak(name: str, request: pytest.FixtureRequest) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = request.getfixturevalue(name)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.num_hidden_layers == 4
    assert model.config.vocab_size >= len(tokenizer)
    assert model.dtype == torch.float32
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "好吗"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    first, second = (model.generate(**asked, max_new_tokens=4).tolist() for _ in range(2))
    assert first == second
