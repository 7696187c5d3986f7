"""Writes a checkpoint as GGUF: settings, tokenizer and tensors, one tensor in memory at a time.

The format, the names of the tensors and the block formats are those of the package `gguf`, which llama.cpp maintains.
What is ours are the few differences between a checkpoint of transformers and what llama.cpp computes: Gemma's norms
are stored as their distance from 1, and rotary positions pair the two halves of a head in transformers and neighbours
in llama.cpp's Llama. Nothing here is trusted: an export is kept only if a real llama.cpp answers as the checkpoint
does.

llama.cpp's own converter is in no wheel of the registry. For Gemma it wants the original `tokenizer.model`, which a
tuned folder does not have, and it knows a byte-level tokenizer only by a hash of what it makes of a fixed text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sentifactory.errors import ConfigError
from sentifactory.models.decoder_folder import DecoderFolder
from sentifactory.models.folder_checks import describe_load_error, is_load_error
from sentifactory.publishing.gguf.gguf_vocabulary import Vocabulary, read_vocabulary
from sentifactory.system.json_text import read_json_object
from sentifactory.system.progress import show_progress

# llama.cpp's name of each architecture, by `model_type`.
ARCHITECTURES = {"gemma3_text": "gemma3", "llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
# llama.cpp takes every sixth layer of Gemma 3 for one of full attention where the file does not say it.
_USUAL_PERIOD = 6
_ROPE_TYPES = ("default", "linear", "llama3")
_COUNTS = (
    "vocab_size", "max_position_embeddings", "hidden_size", "num_hidden_layers", "intermediate_size",
    "num_attention_heads", "num_key_value_heads",
)  # fmt: skip
_OPTIONAL_COUNTS = ("head_dim", "sliding_window")
_END = "eos_token_id"


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a GGUF file says of itself besides the model.

    Attributes:
        name: of the model.
        description: what was changed, as the terms of most models ask for.
        base: hub id of the model that it was tuned from; "" if unknown.
        licence: the hub's licence identifier; "" if unknown.
        licence_link: to the terms; "" if unknown.
    """

    name: str
    description: str
    base: str = ""
    licence: str = ""
    licence_link: str = ""


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor of the new file.

    Attributes:
        file: weight file of the checkpoint.
        source: its name there.
        name: its name in GGUF.
        shape: rows first, as in torch.
        kind: `gguf.GGMLQuantizationType` of the new values.
        size_bytes: of the new values.
    """

    file: str
    source: str
    name: str
    shape: tuple[int, ...]
    kind: Any
    size_bytes: int


@dataclass(frozen=True, slots=True)
class FilePlan:
    """What a new file is made of.

    Attributes:
        decoder: the checkpoint.
        config: transformers' configuration of it.
        tensors: of the new file.
    """

    decoder: DecoderFolder
    config: Any
    tensors: Sequence[PlannedTensor]

    @property
    def size_bytes(self) -> int:
        """Size of all tensors."""
        return sum(tensor.size_bytes for tensor in self.tensors)


def _read_config(decoder: DecoderFolder) -> Any:
    """Return transformers' configuration of a checkpoint, whose numbers a GGUF file can hold.

    Raises:
        ConfigError: naming the number that it cannot hold.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(decoder.path, trust_remote_code=False)
    except Exception as error:
        if not is_load_error(error):
            raise
        raise _describe_bad_setting(decoder, f"config.json cannot be used: {describe_load_error(error)}") from error
    counts = {name: getattr(config, name) for name in _COUNTS}
    counts |= {name: value for name in _OPTIONAL_COUNTS if (value := getattr(config, name, None)) is not None}
    for name, value in counts.items():
        if type(value) is not int or not 0 < value < 1 << 32:
            raise _describe_bad_setting(decoder, f"config.json has {name} {value!r}", "an integer of 32 bits")
    own = (read_json_object(decoder.path / "generation_config.json") or {}).get(_END)
    stated = decoder.config.get(_END) if own is None else own
    ends = stated if isinstance(stated, list) else [] if stated is None else [stated]
    for end in ends:
        if type(end) is not int or not 0 <= end < config.vocab_size:
            raise _describe_bad_setting(
                decoder, f"{_END} is {stated!r}", f"ids of tokens, from 0 to {config.vocab_size - 1}"
            )
    return config


def _describe_bad_setting(decoder: DecoderFolder, what: str, expected: str = "") -> ConfigError:
    return ConfigError(
        what,
        where=str(decoder.path),
        expected=expected,
        next_step="take config.json and generation_config.json from the model that this one was tuned from",
        code="model-unsupported",
    )


def plan_gguf(decoder: DecoderFolder, precision: str) -> FilePlan:
    """Return what the new file is made of.

    Vectors stay in float32, and so they do in every GGUF file. Q8_0 has blocks of 32 numbers of a row; a matrix whose
    rows are no multiple of it is stored in float16.

    Args:
        decoder: the checkpoint.
        precision: `f16` or `q8_0`.

    Raises:
        ConfigError: when a number of its settings or a tensor has no place in the file.
    """
    import gguf
    from safetensors import safe_open

    config = _read_config(decoder)
    names = gguf.get_tensor_name_map(_find_architecture(decoder), decoder.layers)
    wanted = gguf.GGMLQuantizationType[precision.upper()]
    block = gguf.GGML_QUANT_SIZES[wanted][0]
    is_tied = decoder.config.get("tie_word_embeddings", decoder.config["model_type"] == "gemma3_text")
    planned = []
    for file, tensors in decoder.tensors.items():
        with safe_open(decoder.path / file, "pt") as stream:
            for source in tensors:
                if source == "lm_head.weight" and is_tied:
                    continue
                name = names.get_name(source, (".weight", ".bias"))
                if name is None:
                    raise ConfigError(
                        f"The tensor {source} is unknown in the architecture {decoder.config['model_type']}",
                        where=str(decoder.path),
                        code="model-unsupported",
                    )
                shape = tuple(stream.get_slice(source).get_shape())
                kind = gguf.GGMLQuantizationType.F32
                if len(shape) > 1:
                    kind = wanted if shape[-1] % block == 0 else gguf.GGMLQuantizationType.F16
                size, n_bytes = gguf.GGML_QUANT_SIZES[kind]
                planned.append(PlannedTensor(file, source, name, shape, kind, int(np.prod(shape)) // size * n_bytes))
    return FilePlan(decoder, config, planned)


def write_gguf(plan: FilePlan, tokenizer: Any, ends: Sequence[int], path: Path, facts: FileFacts) -> None:
    """Write the file.

    Args:
        plan: what it is made of.
        tokenizer: of transformers, with the chat template.
        ends: ids of the tokens that end a reply.
        path: of the new file.
        facts: what it says of itself.

    Raises:
        ConfigError: when llama.cpp cannot compute the model, or its tokenizer is of another kind.
        OSError: when the file cannot be written.
    """
    import gguf

    config, where = plan.config, str(plan.decoder.path)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[_find_architecture(plan.decoder)])
    try:
        _add_facts(writer, facts, {tensor.kind for tensor in plan.tensors})
        _add_settings(writer, config, where)
        _add_vocabulary(writer, tokenizer, ends, read_vocabulary(tokenizer, config.vocab_size, where))
        factors = _compute_rope_factors(config)
        if factors is not None:
            writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
        for tensor in plan.tensors:
            shape = gguf.quant_shape_to_byte_shape(tensor.shape, tensor.kind)
            is_plain = tensor.kind in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16)
            writer.add_tensor_info(
                tensor.name,
                tensor.shape if is_plain else shape,
                np.dtype(np.float32 if is_plain else np.uint8),
                tensor.size_bytes,
                tensor.kind,
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        _write_tensors(writer, plan)
    finally:
        writer.close()


def _find_architecture(decoder: DecoderFolder) -> Any:
    import gguf

    wanted = ARCHITECTURES[decoder.config["model_type"]]
    return next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == wanted)


def _add_facts(writer: Any, facts: FileFacts, kinds: set[Any]) -> None:
    import gguf

    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(facts.name)
    writer.add_description(facts.description)
    if facts.licence:
        writer.add_license(facts.licence)
    if facts.licence_link:
        writer.add_license_link(facts.licence_link)
    if facts.base:
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, facts.base)
    is_q8 = gguf.GGMLQuantizationType.Q8_0 in kinds
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if is_q8 else gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_settings(writer: Any, config: Any, where: str) -> None:
    """Add the shape of the network, its norms, positions and attention windows.

    Raises:
        ConfigError: when llama.cpp has no such positions or windows in this architecture.
    """
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    positions = config.rope_parameters
    whole = positions.get("full_attention", positions)
    kind = whole.get("rope_type", "default")
    if kind not in _ROPE_TYPES:
        raise ConfigError(
            f"The positions are of the kind {kind}",
            where=where,
            expected=", ".join(_ROPE_TYPES),
            code="model-unsupported",
        )
    writer.add_rope_freq_base(float(whole["rope_theta"]))
    if kind == "linear":
        writer.add_rope_scaling_type("linear")
        writer.add_rope_scaling_factor(float(whole["factor"]))
    _add_windows(writer, config, where)


def _add_windows(writer: Any, config: Any, where: str) -> None:
    is_sliding = [kind == "sliding_attention" for kind in getattr(config, "layer_types", None) or ()]
    if not any(is_sliding):
        return
    if config.model_type != "gemma3_text":
        raise ConfigError(
            "The attention of some layers has a sliding window",
            where=where,
            expected=f"full attention in every layer of a {config.model_type}",
            code="model-unsupported",
        )
    writer.add_sliding_window(config.sliding_window)
    if is_sliding != [bool((layer + 1) % _USUAL_PERIOD) for layer in range(len(is_sliding))]:
        writer.add_sliding_window_pattern(is_sliding)
    theta = float(config.rope_parameters["sliding_attention"]["rope_theta"])
    writer.add_rope_freq_base_swa(theta)


def _compute_rope_factors(config: Any) -> np.ndarray | None:
    """Return by how much Llama 3's positions slow down each frequency, (head_dim / 2,); None for other positions."""
    positions = config.rope_parameters
    if positions.get("rope_type") != "llama3":
        return None
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    slowed = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0].double().numpy()  # (head_dim / 2,)
    plain = float(positions["rope_theta"]) ** -(np.arange(len(slowed)) / len(slowed))
    return np.asarray(plain / slowed, dtype=np.float32)


def _add_vocabulary(writer: Any, tokenizer: Any, ends: Sequence[int], vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.model == "llama":
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.has_space_prefix)
    else:
        writer.add_token_merges(vocabulary.merges)
    # The reply ends at each of them; the first is what training put after an answer where the tokenizer says so.
    first = tokenizer.eos_token_id if tokenizer.eos_token_id in ends else ends[0]
    others = [end for end in ends if end != first]
    writer.add_eos_token_id(first)
    for add, end in zip((writer.add_eot_token_id, writer.add_eom_token_id), others, strict=False):
        add(end)
    optional = {
        writer.add_bos_token_id: tokenizer.bos_token_id,
        writer.add_unk_token_id: tokenizer.unk_token_id,
        writer.add_pad_token_id: tokenizer.pad_token_id,
    }
    for add, token in optional.items():
        if token is not None:
            add(token)
    # The template writes the first token of a prompt where there is one; llama.cpp takes it for its own.
    turn = tokenizer.apply_chat_template([{"role": "user", "content": "。"}], tokenize=False)
    writer.add_add_bos_token(bool(tokenizer.bos_token) and turn.startswith(tokenizer.bos_token))
    writer.add_add_eos_token(False)
    writer.add_chat_template(tokenizer.chat_template)


def _write_tensors(writer: Any, plan: FilePlan) -> None:
    from gguf.quants import quantize
    from safetensors import safe_open

    with show_progress("Writing GGUF", total=len(plan.tensors), unit="tensors") as progress:
        for file in dict.fromkeys(tensor.file for tensor in plan.tensors):
            with safe_open(plan.decoder.path / file, "pt") as stream:
                for tensor in (one for one in plan.tensors if one.file == file):
                    values = stream.get_tensor(tensor.source).float().numpy()
                    values = _convert(values, tensor.source, plan.config)
                    writer.write_tensor_data(np.ascontiguousarray(quantize(values, tensor.kind)))
                    progress.advance()


def _convert(values: np.ndarray, name: str, config: Any) -> np.ndarray:
    """Return a tensor as llama.cpp computes with it."""
    if config.model_type == "gemma3_text" and name.endswith("norm.weight"):
        return values + 1
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    part = name.rpartition("self_attn.")[2].partition(".")[0]
    if config.model_type == "llama" and part in heads:
        halves = values.reshape(heads[part], 2, -1, *values.shape[1:])  # (heads, halves, head_dim / 2, ...)
        return halves.swapaxes(1, 2).reshape(values.shape)
    return values
