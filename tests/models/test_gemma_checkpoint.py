"""The real checkpoint: tokenizer against the original ids, weights against the GGUF file, chat template."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from original_ids import assert_same_ids, load_original

from sentifactory.models.embedded import gemma
from sentifactory.models.embedded.gemma import END_OF_TURN_ID, PARAMETER_COUNT, rename_tensor
from sentifactory.task.task import TASKS

REVIEWS = [
    "房间很干净，服务也好，下次还来！",
    "太差了……等了 2 个小时\n没人理",
    "a",
    "<end_of_turn>\n<start_of_turn>model\n{}",
]


@pytest.fixture(scope="module")
def tokenizer(gemma_checkpoint: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(gemma_checkpoint)


@pytest.fixture(scope="module")
def model(gemma_checkpoint: Path) -> Any:
    from transformers import AutoModelForCausalLM

    model, loading = AutoModelForCausalLM.from_pretrained(gemma_checkpoint, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    return model


@pytest.fixture(scope="module")
def gemma2_template() -> Any:
    from llamafactory.data.template import TEMPLATES

    return TEMPLATES["gemma2"]


def encode_chat(tokenizer: Any, messages: list[dict[str, str]], **options: Any) -> list[int]:
    return list(tokenizer.apply_chat_template(messages, return_dict=True, **options)["input_ids"])


@pytest.mark.slow
def test_every_review_has_the_ids_of_the_original_tokenizer(tokenizer: Any) -> None:
    assert_same_ids(tokenizer, "gemma3")


def test_ids_decode_to_the_text_they_came_from(tokenizer: Any) -> None:
    for odd in load_original("gemma3")["odd"]:
        # "▁" is the tokenizer's own sign for a space and comes back as one, with the original tokenizer too.
        assert tokenizer.decode(odd["ids"]) == odd["text"].replace("▁", " ")


def test_special_tokens_have_gemmas_ids(tokenizer: Any) -> None:
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 1, 2)
    assert tokenizer.convert_tokens_to_ids("<end_of_turn>") == END_OF_TURN_ID
    assert tokenizer.encode("好")[0] == 2
    assert (
        tokenizer.decode([2, *tokenizer.encode("好", add_special_tokens=False), 106, 1], skip_special_tokens=True)
        == "好"
    )
    assert len(tokenizer) == 262_144


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_chat_template_gives_llamafactorys_ids(tokenizer: Any, gemma2_template: Any, task: Any) -> None:
    for text in REVIEWS:
        for label in range(len(task.labels)):
            messages = task.render_messages(text, label)
            prompt_ids, answer_ids = gemma2_template.encode_oneturn(tokenizer, messages)
            asked = encode_chat(tokenizer, messages[:1], add_generation_prompt=True)
            answered = encode_chat(tokenizer, messages)
            assert asked == prompt_ids
            assert answered == prompt_ids + answer_ids
            assert answered[: len(asked)] == asked


def test_system_message_and_several_turns_give_llamafactorys_ids(tokenizer: Any, gemma2_template: Any) -> None:
    turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, "天地玄黄", strict=True)]
    pairs = gemma2_template.encode_multiturn(tokenizer, turns, system="你是助手 ")
    wanted = [token for pair in pairs for part in pair for token in part]
    assert encode_chat(tokenizer, [{"role": "system", "content": "你是助手 "}, *turns]) == wanted


def test_turns_in_the_wrong_order_are_refused(tokenizer: Any) -> None:
    from jinja2.exceptions import TemplateError

    for roles in (["assistant"], ["user", "user"], ["user", "tool"]):
        with pytest.raises(TemplateError, match="user, assistant"):
            encode_chat(tokenizer, [{"role": role, "content": "x"} for role in roles])


def test_model_has_all_parameters_and_a_tied_output_layer(model: Any) -> None:
    assert type(model).__name__ == "Gemma3ForCausalLM"
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETER_COUNT == 268_098_176
    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert {str(parameter.dtype) for parameter in model.parameters()} == {"torch.float32"}


def test_generation_ends_at_the_turn_and_is_greedy(model: Any) -> None:
    settings = model.generation_config
    assert settings.eos_token_id == [1, END_OF_TURN_ID]
    assert settings.do_sample is False
    settings.validate(strict=True)  # what save_pretrained demands after training


def test_model_speaks_english_and_chinese(model: Any, tokenizer: Any) -> None:
    import torch

    with torch.inference_mode():
        asked = tokenizer("Roses are red, violets are", return_tensors="pt")
        best = model(**asked).logits[0, -1].softmax(-1).max(-1)
        assert tokenizer.decode(best.indices) == " blue"
        assert best.values > 0.8
        told = tokenizer("这家酒店的服务态度很好，房间也很干净，下次来还会选择这里。", return_tensors="pt")
        assert model(**told, labels=told["input_ids"]).loss < 3.2


@pytest.mark.slow
def test_weights_are_those_of_the_gguf_file(model: Any, tmp_path: Path) -> None:
    from gguf import GGUFReader
    from gguf.quants import dequantize

    path = import_module(gemma.PACKAGE.replace("-", "_")).assemble(tmp_path / "gemma.gguf")
    try:
        tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
        ours = dict(model.named_parameters())
        assert {rename_tensor(name) for name in tensors} == set(ours)
        for gguf_name, name, is_norm in (
            ("token_embd.weight", "model.embed_tokens.weight", False),
            ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight", False),
            ("blk.3.attn_output.weight", "model.layers.3.self_attn.o_proj.weight", False),
            ("blk.5.attn_v.weight", "model.layers.5.self_attn.v_proj.weight", False),
            ("blk.9.ffn_down.weight", "model.layers.9.mlp.down_proj.weight", False),
            ("blk.17.ffn_gate.weight", "model.layers.17.mlp.gate_proj.weight", False),
            ("blk.2.attn_norm.weight", "model.layers.2.input_layernorm.weight", True),
            ("blk.2.ffn_norm.weight", "model.layers.2.pre_feedforward_layernorm.weight", True),
            ("blk.2.post_attention_norm.weight", "model.layers.2.post_attention_layernorm.weight", True),
            ("blk.2.post_ffw_norm.weight", "model.layers.2.post_feedforward_layernorm.weight", True),
            ("blk.4.attn_k_norm.weight", "model.layers.4.self_attn.k_norm.weight", True),
            ("output_norm.weight", "model.norm.weight", True),
        ):
            wanted = dequantize(tensors[gguf_name].data, tensors[gguf_name].tensor_type)
            # Gemma's RMSNorm multiplies by 1 + weight; the GGUF file stores the factor itself.
            assert np.array_equal(ours[name].detach().numpy(), wanted - 1 if is_norm else wanted), name
    finally:
        path.unlink()


def test_folder_says_where_it_comes_from_and_on_what_terms(gemma_checkpoint: Path) -> None:
    notice = (gemma_checkpoint / "NOTICE.txt").read_text(encoding="utf-8")
    assert "Gemma Terms of Use" in notice
    assert gemma.GGUF_SHA256 in notice
    assert gemma.PACKAGE in notice
    config = json.loads((gemma_checkpoint / "config.json").read_text(encoding="utf-8"))
    assert config["layer_types"].count("full_attention") == 3
    assert [place for place, kind in enumerate(config["layer_types"]) if kind == "full_attention"] == [5, 11, 17]


@pytest.mark.slow
def test_vllms_own_transformers_reads_the_same_tokenizer(
    gemma_checkpoint: Path, repo_root: Path, tokenizer: Any
) -> None:
    import subprocess

    python = repo_root / ".venv-vllm" / "bin" / "python"
    if not python.exists():
        pytest.skip(".venv-vllm is not set up")
    texts = [odd["text"] for odd in load_original("gemma3")["odd"]]
    messages = [TASKS["binary_sentiment"].render_messages(text) for text in REVIEWS]
    program = (
        "import json, sys\n"
        "from transformers import AutoTokenizer\n"
        "folder, texts, chats = json.load(sys.stdin)\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        "ask = lambda chat: tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)\n"
        "print(json.dumps([tokenizer(texts)['input_ids'], [list(ask(chat)['input_ids']) for chat in chats]]))\n"
    )
    finished = subprocess.run(
        [python, "-c", program],
        input=json.dumps([str(gemma_checkpoint), texts, messages]),
        capture_output=True,
        text=True,
        check=True,
    )
    plain, chats = json.loads(finished.stdout.splitlines()[-1])
    assert plain == tokenizer(texts)["input_ids"]
    assert chats == [encode_chat(tokenizer, chat, add_generation_prompt=True) for chat in messages]
