"""The folder of a decoder's checkpoint: which family it is, how many layers it has, which tensor is in which file.

Only file heads are read, no weights. Not covered: weights in other files than safetensors, and decoders that are part
of a larger model, such as one that also sees images.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.models.complete_folder import refuse_incomplete
from sentifactory.models.folder_checks import describe_load_error, find_unsafe_content
from sentifactory.models.weights import ADAPTER_CONFIG, list_shards
from sentifactory.system.json_text import read_json_object

# The architecture of each `model_type`. Of these families it is tested that the lowest layers alone compute what they
# compute in the whole model.
FAMILIES = {
    "gemma3_text": "Gemma3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
# Where config.json does not say whether embeddings and output projection are the same weights.
_TIED_BY_DEFAULT = ("gemma3_text",)
WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_HEAD = "lm_head.weight"
_MAKE_WHOLE = "take the model from its source again"


@dataclass(frozen=True, slots=True)
class DecoderFolder:
    """A whole checkpoint of a known family, whose tensors can be copied one by one.

    Attributes:
        path: the folder.
        config: the content of config.json.
        layers: number of decoder layers.
        tensors: names of the tensors in each weight file, by file name.
    """

    path: Path
    config: dict[str, Any]
    layers: int
    tensors: dict[str, tuple[str, ...]]


def read_decoder(folder: Path) -> DecoderFolder:
    """Return what a decoder's folder holds.

    Raises:
        ConfigError: when it is an adapter, quantised, of another family, without safetensors, or incomplete.
    """
    if fault := find_unsafe_content(folder):
        raise ConfigError(f"This model is not loaded: {fault}", where=str(folder), code="model-hostile")
    if (folder / ADAPTER_CONFIG).is_file():
        raise ConfigError(
            "This is an adapter, which has no layers of its own",
            where=str(folder),
            expected="a whole checkpoint",
            next_step="merge it into its base model with `sentifactory export merge`",
            code="model-adapter",
        )
    if not (folder / "config.json").is_file():
        refuse_incomplete(folder, str(folder))  # names the models in it: those of runs, that of a stack
    config = _read_config(folder)
    tensors = _read_tensor_names(folder)
    layers = config["num_hidden_layers"]
    _check_whole(folder, config, {name for names in tensors.values() for name in names}, layers)
    return DecoderFolder(folder, config, layers, tensors)


def find_layer(tensor: str) -> int | None:
    """Return the number of the decoder layer that a tensor belongs to; None for one outside the layers.

    Example:
        >>> find_layer("model.layers.11.mlp.up_proj.weight"), find_layer("model.norm.weight")
        (11, None)
    """
    found = _LAYER.fullmatch(tensor)
    return int(found[1]) if found else None


def _read_config(folder: Path) -> dict[str, Any]:
    config = read_json_object(folder / "config.json") or {}
    architectures, family = config.get("architectures"), str(config.get("model_type"))
    layers = config.get("num_hidden_layers")
    if family not in FAMILIES or architectures != [FAMILIES[family]] or type(layers) is not int or layers < 1:
        shown = ", ".join(map(str, architectures)) if isinstance(architectures, list) else family
        raise ConfigError(
            f"The architecture is not supported ({shown})",
            where=str(folder),
            expected=f"config.json of {', '.join(FAMILIES.values())}",
            code="model-not-decoder",
        )
    if config.get("quantization_config"):
        raise ConfigError(
            "The weights are quantised",
            where=str(folder),
            expected="weights in float32, bfloat16 or float16",
            next_step="take the model that they were made from",
            code="model-quantised",
        )
    return config


def _read_tensor_names(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the tensors of each weight file, of the files that transformers would load."""
    from safetensors import SafetensorError, safe_open

    is_single = (folder / WEIGHTS_NAME).is_file()
    files = [WEIGHTS_NAME] if is_single else list_shards(folder / INDEX_NAME) or []
    if not files or any(Path(name).name != name for name in files):
        raise ConfigError(
            "There are no weights in safetensors",
            where=str(folder),
            expected=f"{WEIGHTS_NAME}, or {INDEX_NAME} and its files",
            next_step="load the model with transformers, and save it",
            code="model-no-safetensors",
        )
    found = {}
    for name in files:
        try:
            with safe_open(folder / name, "pt") as stream:
                found[name] = tuple(stream.keys())
        except (OSError, SafetensorError) as error:
            raise ConfigError(
                f"The weights cannot be read ({describe_load_error(error)})",
                where=str(folder / name),
                next_step=_MAKE_WHOLE,
                code="model-weights-unreadable",
            ) from error
    return found


def _check_whole(folder: Path, config: dict[str, Any], names: set[str], layers: int) -> None:
    """Refuse weights that lack something: a loader would make it up at random, and only warn."""
    parts: dict[int, set[str]] = {layer: set() for layer in range(layers)}
    for name in names:
        if (found := _LAYER.fullmatch(name)) and int(found[1]) in parts:
            parts[int(found[1])].add(found[2])
    of_a_layer = set[str]().union(*parts.values())
    missing = {"model.embed_tokens.weight", "model.norm.weight"} - names
    missing |= {f"model.layers.{layer}.{part}" for layer in parts for part in (of_a_layer or {"*"}) - parts[layer]}
    if not config.get("tie_word_embeddings", config["model_type"] in _TIED_BY_DEFAULT):
        missing |= {_HEAD} - names
    if missing:
        shown = ", ".join(sorted(missing)[:3])
        raise ConfigError(
            f"{len(missing)} tensors are missing, such as {shown}",
            where=str(folder),
            expected=f"the weights of {layers} layers",
            next_step=_MAKE_WHOLE,
            code="model-weights-incomplete",
        )
