"""What the page offers to choose from: models and recipes of this machine.

People choose by name, and the name is looked up among what was found here: no path that comes from a browser is ever
opened. A model that would have to run code of its own, or whose weights are a pickle, is not offered.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sentifactory.engines.adapters import ADAPTER_CONFIG
from sentifactory.engines.onnx import is_export
from sentifactory.errors import ConfigError, SentiFactoryError
from sentifactory.json_object import read_json_object
from sentifactory.models.weights import TRAINER_STATE
from sentifactory.training.encoder_recipe import is_encoder_recipe
from sentifactory.training.recipe import Recipe, load_recipe
from sentifactory.training.run_card import read_card

# The first part of the names of models that were trained on the page.
OWN = "ui"
_DEEPEST = 5
# Configurations name code with these; transformers looks for some of them in the tokenizer's and others' as well.
_CODE_KEYS = {"auto_map", "custom_pipelines"}
_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".keras"})


def find_models(roots: Mapping[str, Path], skipped: Sequence[Path] = ()) -> dict[str, Path]:
    """Return the models below some folders by name, the newest first.

    Args:
        roots: the folders, by the first part of the names of what is in them.
        skipped: folders that are not looked into.
    """
    found: dict[str, Path] = {}
    for prefix, root in roots.items():
        for folder in _walk_models(root.resolve(), [path.resolve() for path in skipped]):
            inner = folder.relative_to(root.resolve()).as_posix()
            found[prefix if inner == "." else f"{prefix}/{inner}"] = folder
    return dict(sorted(found.items(), key=lambda item: (-(item[1] / "config.json").stat().st_mtime, item[0])))


def _walk_models(root: Path, skipped: Sequence[Path]) -> Iterator[Path]:
    for name, folders, _ in os.walk(root, followlinks=True):
        place = Path(name)
        depth = len(place.relative_to(root).parts)
        if is_safe_model(place):
            yield place
        kept = [
            folder
            for folder in folders
            if not folder.startswith((".", "checkpoint-")) and (place / folder).resolve() not in skipped
        ]
        folders[:] = sorted(kept) if depth < _DEEPEST else []


def is_safe_model(folder: Path) -> bool:
    """Return whether a folder holds a finished model that loads without a pickle and without code of its own."""
    card = read_card(folder)
    is_finished = card is None or card.get("status") == "finished"
    has_weights = is_export(folder) or any(folder.glob("*.safetensors"))
    return (folder / "config.json").is_file() and is_finished and has_weights and not is_risky(folder)


def is_risky(folder: Path) -> bool:
    """Return whether loading a folder might run code that came with it.

    Code is named by an `auto_map` anywhere in a configuration (of model, tokenizer, adapter, ...) or sits in a pickle,
    which a loader may prefer to the safetensors beside it, or be led to by an index; what a Trainer leaves of its
    arguments is opened by none. A configuration that cannot be read is not trusted; an adapter's base model is loaded
    as well.
    """
    try:
        files = [path for path in folder.iterdir() if path.is_file()]
        if any(path.suffix.lower() in _PICKLES and path.name != TRAINER_STATE for path in files):
            return True
        configs = [path for path in files if path.name.endswith(("config.json", ".index.json"))]
        if any(_names_code(path, path.stat().st_mtime_ns, path.stat().st_size) for path in configs):
            return True
    except OSError:
        return True
    adapter = read_json_object(folder / ADAPTER_CONFIG)
    if adapter is None:
        return False
    base = Path(str(adapter.get("base_model_name_or_path")))
    return (base / ADAPTER_CONFIG).exists() or not is_safe_model(base)


@lru_cache(maxsize=4096)
def _names_code(path: Path, mtime_ns: int, n_bytes: int) -> bool:
    """Return whether a configuration of this age and size names code, or files elsewhere or of another kind."""
    left: list[Any] = [read_json_object(path)]
    if left == [None]:
        return True
    while left:
        value = left.pop()
        if isinstance(value, dict):
            files = value.get("weight_map", {})
            if _CODE_KEYS & value.keys() or not isinstance(files, dict):
                return True
            if any(not re.fullmatch(r"[\w.-]+\.safetensors", str(name)) for name in files.values()):
                return True
            left += value.values()
        elif isinstance(value, list):
            left += value
    return False


def choose_sides(models: Sequence[str]) -> tuple[str | None, str | None]:
    """Return which models are chosen at first: a pretrained one, and the newest that was trained here.

    Example:
        >>> choose_sides(["ui/mine", "saves/pretrained/e5"])
        ('saves/pretrained/e5', 'ui/mine')
    """
    own = [name for name in models if name.startswith(f"{OWN}/")]
    others = [name for name in models if not name.startswith(f"{OWN}/")]
    pretrained = [name for name in others if "pretrained" in name] or others
    tuned = own or [name for name in others if name not in pretrained[:1]]
    return next(iter(pretrained), None), next(iter(tuned), None)


def pick(choices: Mapping[str, Any], name: str | None, what: str) -> Any:
    """Return the choice of this name.

    Raises:
        ConfigError: when there is none.
    """
    if not name or name not in choices:
        raise ConfigError(
            f"There is no {what} {name!r}" if name else f"No {what} is chosen",
            expected=", ".join(list(choices)[:8]) or "one, but there is none here",
            next_step="choose one from the list",
        )
    return choices[name]


@dataclass(frozen=True, slots=True)
class OfferedRecipe:
    """A recipe that can be run here.

    Attributes:
        recipe: as it stands in its file.
        purpose: the first line of the file's header.
    """

    recipe: Recipe
    purpose: str


def find_recipes(folders: Sequence[Path]) -> dict[str, OfferedRecipe]:
    """Return the recipes below some folders whose model is on this machine, by name."""
    found = {}
    for folder in folders:
        for path in sorted(folder.glob("**/*.yaml")):
            try:
                recipe = load_recipe(path)
            except SentiFactoryError:
                continue  # a YAML of another kind, or a broken one
            if is_offered(recipe):
                found[path.relative_to(folder).with_suffix("").as_posix()] = OfferedRecipe(recipe, read_purpose(path))
    return found


def is_offered(recipe: Recipe) -> bool:
    """Return whether a recipe trains on one data set alone, from a safe model that is on this machine."""
    settings = recipe.settings
    is_training = is_encoder_recipe(recipe) or (settings.get("stage") == "sft" and bool(settings.get("do_train")))
    has_code = bool(settings.get("trust_remote_code"))
    model = Path(str(settings.get("model_name_or_path") or "")).expanduser()
    is_alone = not any(settings.get(key) for key in ("soft_label_path", "adapter_name_or_path", "deepspeed"))
    return is_training and is_alone and not has_code and is_safe_model(model)


def read_purpose(path: Path) -> str:
    """Return what a recipe's header says that it is for."""
    words: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# Purpose:"):
            words.append(line.removeprefix("# Purpose:").strip())
        elif words and line.startswith("#   "):
            words.append(line.lstrip("# "))
        elif words:
            break
    return " ".join(words)
