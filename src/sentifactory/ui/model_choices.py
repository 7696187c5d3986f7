"""The models and recipes of this machine that the page offers.

Users choose by name, and the name is looked up among those found here: no path from a browser is ever opened. Models
that would run code of their own, or whose weights are a pickle, are not offered.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sentifactory.engines.local.onnx_engine import is_export
from sentifactory.errors import SentiFactoryError
from sentifactory.models.weights import ADAPTER_CONFIG, PICKLE_ENDINGS, TRAINER_STATE
from sentifactory.system.json_text import read_json_object
from sentifactory.training.recipe.recipe import Recipe, is_encoder_recipe, load_recipe
from sentifactory.training.run.run_card import read_card
from sentifactory.ui.error_sentences import PageError
from sentifactory.ui.page_words import WORDS

# Prefix of the names of models that were trained on the page.
OWN = "ui"
_MAX_DEPTH = 5
# Keys with which a configuration names code; transformers reads some of them from the tokenizer's and others as well.
_CODE_KEYS = {"auto_map", "custom_pipelines"}
_RANK = re.compile(r"^# Recommended: (\d{1,3})\b", re.MULTILINE)
_NO_RANK = 1000
_PICKLES = frozenset({*PICKLE_ENDINGS, ".npz", ".keras"})


def find_models(roots: Mapping[str, Path], skipped: Sequence[Path] = ()) -> dict[str, Path]:
    """Return the models below some folders by name, the newest first.

    Args:
        roots: the folders, by the prefix of the names of their models.
        skipped: folders that are not searched.
    """
    found: dict[str, Path] = {}
    for prefix, root in roots.items():
        for folder in _walk_models(root.resolve(), [path.resolve() for path in skipped]):
            inner = folder.relative_to(root.resolve()).as_posix()
            found[prefix if inner == "." else f"{prefix}/{inner}"] = folder
    changed_at = {name: _read_change_time(folder / "config.json") for name, folder in found.items()}
    return {name: found[name] for name in sorted(found, key=lambda name: (-changed_at[name], name))}


def _read_change_time(file: Path) -> float:
    """Return when a file was changed; 0 where it has been removed since it was found."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


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
        folders[:] = sorted(kept) if depth < _MAX_DEPTH else []


def is_safe_model(folder: Path) -> bool:
    """Return whether a folder is a finished model that loads without pickles and without code of its own."""
    card = read_card(folder)
    is_finished = card is None or card.get("status") == "finished"
    has_weights = is_export(folder) or any(folder.glob("*.safetensors"))
    return (folder / "config.json").is_file() and is_finished and has_weights and not is_risky(folder)


def is_risky(folder: Path) -> bool:
    """Return whether loading a folder might run code that came with it.

    Code is named by an `auto_map` anywhere in a configuration (of model, tokenizer, adapter, ...), or is in a pickle,
    which a loader may prefer to the safetensors next to it or find by an index; the Trainer's training_args.bin is not
    loaded by any. A configuration that cannot be read is not trusted. The base model of an adapter is checked as well.
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
    """Return whether a configuration names code or weights other than safetensors in its folder.

    The time and size of the file are part of the cache's key.
    """
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


def choose_sides(models: Mapping[str, Path]) -> tuple[str | None, str | None]:
    """Return the default models: the newest tuned one, and the one that it was trained from.

    Where that one is not known or not here, the other is the newest pretrained one.

    Args:
        models: folders by name, the newest first.

    Example:
        >>> choose_sides({"ui/mine": Path("/nowhere/mine"), "saves/pretrained/e5": Path("/nowhere/e5")})
        ('saves/pretrained/e5', 'ui/mine')
    """
    pretrained = [name for name in models if "pretrained" in name]
    pretrained = pretrained or [name for name in models if not name.startswith(f"{OWN}/")][:1]
    tuned = next((name for name in models if name not in pretrained), None)
    origin = None if tuned is None else find_base(models[tuned], models)
    return origin or next(iter(pretrained), None), tuned


def find_base(tuned: Path, models: Mapping[str, Path]) -> str | None:
    """Return the name of the model that a tuned one was trained from, by its run card; None where it is not here.

    A model that was trained on another machine names a folder of that one: here it is the one with the same name.
    """
    base = ((read_card(tuned) or {}).get("recipe") or {}).get("model_name_or_path")
    if not isinstance(base, str):
        return None
    place = Path(base).expanduser().resolve()
    others = {name: folder for name, folder in models.items() if folder != tuned}
    same = (name for name, folder in others.items() if folder == place)
    alike = (name for name, folder in others.items() if folder.name == place.name)
    return next(same, None) or next(alike, None)


def pick(choices: Mapping[str, Any], name: str | None, what: str) -> Any:
    """Return the choice of this name.

    Args:
        choices: by name.
        name: what the user chose.
        what: key of the kind of choice in WORDS.

    Raises:
        PageError: when there is none.
    """
    if not name or name not in choices:
        en, zh = WORDS[f"kind_{what}"]
        raise PageError(
            f"There is no {en} {name}. Choose one from the list." if name else f"No {en} is chosen. Choose one first.",
            f"没有名为 {name} 的{zh}，请从列表中选择。" if name else f"尚未选择{zh}，请先选择。",
            code="choice",
        )
    return choices[name]


@dataclass(frozen=True, slots=True)
class OfferedRecipe:
    """A recipe that can be run here.

    Attributes:
        recipe: from its file.
        purpose: from the header of the file.
        rank: from the header as well (`# Recommended: 1`): those with the lowest come first.
    """

    recipe: Recipe
    purpose: str
    rank: int = _NO_RANK


def find_recipes(folders: Sequence[Path]) -> dict[str, OfferedRecipe]:
    """Return the recipes below some folders whose model is on this machine, by name: the recommended ones first."""
    found: dict[str, OfferedRecipe] = {}
    for folder in folders:
        for path in sorted(folder.glob("**/*.yaml")):
            try:
                recipe = load_recipe(path)
            except SentiFactoryError:
                continue  # a YAML of another kind, or a broken one
            if is_offered(recipe):
                name = path.relative_to(folder).with_suffix("").as_posix()
                found[name] = OfferedRecipe(recipe, read_purpose(path), read_rank(path))
    return dict(sorted(found.items(), key=lambda item: item[1].rank))


def is_offered(recipe: Recipe) -> bool:
    """Return whether a recipe trains a safe model that is on this machine, and needs only a data set."""
    settings = recipe.settings
    is_training = is_encoder_recipe(recipe) or (settings.get("stage") == "sft" and bool(settings.get("do_train")))
    has_code = bool(settings.get("trust_remote_code"))
    model = Path(str(settings.get("model_name_or_path") or "")).expanduser()
    needs_more = any(settings.get(key) for key in ("soft_label_path", "adapter_name_or_path", "deepspeed"))
    return is_training and not needs_more and not has_code and is_safe_model(model)


def read_rank(path: Path) -> int:
    """Return the place among the recommended recipes from the header of a recipe."""
    found = _RANK.search(path.read_text(encoding="utf-8"))
    return int(found[1]) if found else _NO_RANK


def read_purpose(path: Path) -> str:
    """Return the purpose from the header of a recipe."""
    words: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# Purpose:"):
            words.append(line.removeprefix("# Purpose:").strip())
        elif words and line.startswith("#   "):
            words.append(line.lstrip("# "))
        elif words:
            break
    return " ".join(words)
