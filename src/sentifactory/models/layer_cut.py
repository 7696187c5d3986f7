"""Keeps the lowest layers of a pretrained decoder, as a checkpoint that transformers, LLaMA-Factory and vLLM load.

A classifier that is tuned from a decoder often needs no upper layers (Yuan et al. 2024, arXiv 2402.11700); without
them it trains and answers in proportionally less time and memory. The kept tensors are copied file by file, so that
only the tensors of one file are in memory; their values and dtype are the source's.

Not copied: the task, the calibration and the run card of a tuned model. They do not describe the cut one.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from sentifactory.errors import ConfigError
from sentifactory.models.complete_folder import refuse_unfinished
from sentifactory.models.cut_record import describe_source, is_cut_of, read_cut_record, write_card, write_record
from sentifactory.models.decoder_folder import INDEX_NAME, WEIGHTS_NAME, DecoderFolder, find_layer, read_decoder
from sentifactory.models.hub import MODELSCOPE_PREFIX, fetch_from_hub
from sentifactory.models.notices import list_notices
from sentifactory.models.weights import ADAPTER_CONFIG, SETTING_FILES, save_weights
from sentifactory.system.atomic import replace_directory, write_json
from sentifactory.system.network_settings import is_hub_id
from sentifactory.system.progress import say, show_progress

_CONFIG = "config.json"
_TRAVELLING = tuple(name for name in SETTING_FILES if name not in (_CONFIG, ADAPTER_CONFIG, "export.json"))
_MORE_TEMPLATES = "additional_chat_templates"


def cut_model(model: str, layers: int, output_dir: Path) -> dict[str, Any]:
    """Write the lowest layers of a model into a new folder; return the record of where it comes from.

    Nothing is done where the folder already holds this very cut.

    Args:
        model: folder or hub id of a Gemma 3 (text), Llama, Qwen2 or Qwen3 checkpoint.
        layers: how many decoder layers are kept; fewer than there are.
        output_dir: the new folder.

    Raises:
        ConfigError: when the model cannot be cut, has no more layers than are to be kept, or another folder of that
            name is there.
    """
    folder = _find_folder(model)
    refuse_unfinished(folder, model)
    source = read_decoder(folder)
    if not 1 <= layers < source.layers:
        raise ConfigError(
            f"--layers is {layers}, and the model has {source.layers}",
            where=model,
            expected=f"1 to {source.layers - 1}",
            next_step="`sentifactory model probe` says how many layers a task needs",
            code="cut-layers",
        )
    with show_progress("Hashing the source's weights"):
        origin = describe_source(model, folder)
    if output_dir.exists() and is_cut_of(output_dir, origin, layers):
        say(f"{output_dir} is there and complete: nothing to do")
        return read_cut_record(output_dir)
    _refuse_taken(output_dir)
    with replace_directory(output_dir, _refuse_taken) as place:
        config = cut_config(source.config, layers)
        write_json(place / _CONFIG, config)
        notices = _copy_companions(folder, place)
        _copy_weights(source, layers, place)
        record = write_record(place, origin, layers, source.layers)
        write_card(place, record, notices)
    if set(config.get("layer_types") or ["full_attention"]) == {"sliding_attention"}:
        say(f"WARNING: each of the {layers} layers looks back over {config['sliding_window']} tokens only")
    say(f"{output_dir} is ready")
    return record


def _find_folder(model: str) -> Path:
    """Return the folder of a model; one of a hub is fetched."""
    folder = Path(model).expanduser()
    # "saves/demo" has the form of a hub id as well, but whoever has a folder "saves" means that one.
    if not folder.is_dir() and (folder.parent.is_dir() or not is_hub_id(model.removeprefix(MODELSCOPE_PREFIX))):
        raise ConfigError(
            "There is no such model folder",
            where=model,
            expected="the folder of a checkpoint, or a hub id",
            next_step="`sentifactory model fetch gemma-3-270m` makes the pretrained model",
            code="model-missing",
        )
    return fetch_from_hub(model)


def _refuse_taken(folder: Path) -> None:
    """Refuse a place where something stands; an empty folder may be replaced."""
    is_empty = folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())
    if is_empty or not os.path.lexists(folder):
        return
    raise ConfigError(
        "Something stands here that is not this cut of this model",
        where=str(folder),
        expected="no such folder",
        next_step="move it away, or choose another --output_dir",
        code="output-exists",
    )


def cut_config(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """Return the content of config.json for the lowest layers.

    Attention windows stay those of the source: what is listed for each layer is cut to length, and a rule by the
    number of the layer (`sliding_window_pattern`, `max_window_layers`) holds for the lowest layers as it is.

    Example:
        >>> cut_config({"num_hidden_layers": 4, "layer_types": ["a", "a", "a", "b"], "max_window_layers": 4}, 2)
        {'num_hidden_layers': 2, 'layer_types': ['a', 'a'], 'max_window_layers': 2}
    """
    found = config | {"num_hidden_layers": layers}
    if isinstance(config.get("layer_types"), list):
        found["layer_types"] = config["layer_types"][:layers]
    if isinstance(config.get("max_window_layers"), int):
        # vLLM takes fewer full layers than layers for a mixture, which it refuses.
        found["max_window_layers"] = min(config["max_window_layers"], layers)
    return found


def _copy_companions(folder: Path, place: Path) -> list[str]:
    """Copy tokenizer, chat templates, settings of generation and licence files; return the names of the last."""
    notices = list_notices(folder)
    settings = [path for name in _TRAVELLING if (path := folder / name).is_file()]
    templates = sorted((folder / _MORE_TEMPLATES).glob("*.jinja"))
    for path in (*settings, *notices, *templates):
        target = place / path.relative_to(folder)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)
    return [path.name for path in notices]


def _copy_weights(source: DecoderFolder, layers: int, place: Path) -> None:
    """Copy the tensors of the lowest layers and those outside the layers, one weight file after another."""
    from safetensors import safe_open

    kept = {
        name: [tensor for tensor in tensors if (layer := find_layer(tensor)) is None or layer < layers]
        for name, tensors in source.tensors.items()
    }
    files = [name for name, tensors in kept.items() if tensors]
    weight_map: dict[str, str] = {}
    total_bytes = 0
    for number, name in enumerate(files, 1):
        target = WEIGHTS_NAME if len(files) == 1 else f"model-{number:05d}-of-{len(files):05d}.safetensors"
        with safe_open(source.path / name, "pt") as stream:
            tensors = {tensor: stream.get_tensor(tensor) for tensor in kept[name]}
        save_weights(tensors, place / target)
        weight_map |= dict.fromkeys(kept[name], target)
        total_bytes += sum(tensor.nbytes for tensor in tensors.values())
    if len(files) > 1:
        index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
        write_json(place / INDEX_NAME, index)
