"""The reviews that a recipe and a trained model learned from, as far as recipes and run cards name files of them.

A model that was trained further has learned from the reviews of the model that its training started from as well. Its
run card lists them, since that model may be gone later. A checkpoint has the card of its run, and a cut model that of
the model it was cut from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.corpus.leakage.leak_guard import TrainFile
from sentifactory.engines.local.stack_folder import find_member, is_stack, read_facts
from sentifactory.models.complete_folder import CHECKPOINT
from sentifactory.models.cut_record import read_cut_record
from sentifactory.models.first_base import RUN_CARD
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.json_text import read_json_object
from sentifactory.system.network_settings import is_hub_id
from sentifactory.training.recipe.recipe import Recipe
from sentifactory.training.recipe.recipe_checks import list_data_files

# Keys of the models that training starts from.
MODEL_KEYS = ("model_name_or_path", "adapter_name_or_path")
# Of a run card: what the model that training started from had learned from.
EARLIER = "earlier_training"


@dataclass(frozen=True, slots=True)
class KnownTraining:
    """Training files of a model.

    Attributes:
        files: those that are unchanged since training.
        problem: why others cannot be compared, as a sentence; "" if there are none.
        hashes: SHA-256 of all that are known, by which a file that lies elsewhere now is recognised.
    """

    files: list[TrainFile]
    problem: str = ""
    hashes: frozenset[str] = frozenset()


def list_train_files(recipe: Recipe) -> list[TrainFile]:
    """Return the local files that a recipe trains on, with LLaMA-Factory's limit of rows."""
    files = list_data_files(recipe.settings, ["dataset"])
    soft_labels = list_data_files(recipe.settings, ["soft_label_path"])
    n_files = Counter(name for name, _ in files)
    limit = recipe.settings.get("max_samples")
    # The limit holds for a whole data set: where that has several files, all rows are compared.
    limited = [TrainFile(path, limit if n_files[name] == 1 else None) for name, path in files]
    return [*limited, *(TrainFile(path) for _, path in soft_labels)]


def list_starts(settings: Mapping[str, Any]) -> list[str]:
    """Return the models that a recipe starts from: folders, or names on a hub.

    Example:
        >>> list_starts({"model_name_or_path": "saves/base", "adapter_name_or_path": "saves/a, saves/b"})
        ['saves/base', 'saves/a', 'saves/b']
    """
    named = [settings.get(key) for key in MODEL_KEYS]
    return [name.strip() for one in named if isinstance(one, str) for name in one.split(",")]


def read_earlier_training(settings: Mapping[str, Any]) -> KnownTraining:
    """Return what the models that a recipe starts from have learned from."""
    return _read_starts(settings, frozenset())


def _read_starts(settings: Mapping[str, Any], seen: frozenset[Path]) -> KnownTraining:
    known = []
    for start in list_starts(settings):
        if Path(start).expanduser().exists() or is_hub_id(start):
            known.append(_read_training(start, seen))
        else:
            known.append(KnownTraining([], f"Not everything was compared: {start} is not here any more."))
    return _join(known)


def describe_earlier_training(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same for the run card, with absolute paths and hashes."""
    known = read_earlier_training(settings)
    files = [
        {"file": str(one.path.resolve()), "sha256": hash_file(one.path), "max_rows": one.max_rows}
        for one in known.files
    ]
    return {"files": files, "problem": known.problem}


def read_training(model: str) -> KnownTraining:
    """Return what a model has learned from, its own training first.

    Of a stack, these are the files of its model, and those that TF-IDF and the combination were fitted on. Of a model
    without a run card nothing is known.
    """
    return _read_training(model, frozenset())


def _read_training(model: str, seen: frozenset[Path]) -> KnownTraining:
    """Return the same; of the models in `seen`, which are those that led here, nothing is read again."""
    place = Path(model).expanduser().resolve()
    if place in seen:
        return KnownTraining([])
    if is_stack(model):
        return _join([_read_stack_files(model), read_training(find_member(model))])
    card = _find_card(place)
    if card is None or not isinstance(card.get("recipe"), dict):
        return KnownTraining([])
    earlier = card.get(EARLIER)
    if isinstance(earlier, dict):
        before = _read_listed(earlier, model)
    else:  # a card of an earlier version
        before = _read_starts(card["recipe"], seen | {place})
    return _join([_read_own_files(card, model), before])


def _find_card(folder: Path) -> dict[str, Any] | None:
    card = read_json_object(folder / RUN_CARD)
    if card is None and CHECKPOINT.fullmatch(folder.name):
        card = read_json_object(folder.parent / RUN_CARD)
    if card is None:
        found = read_cut_record(folder).get("source", {}).get(RUN_CARD)
        card = found if isinstance(found, dict) else None
    return card


def _read_own_files(card: Mapping[str, Any], model: str) -> KnownTraining:
    stated = {item.get("file"): item.get("sha256") for item in card.get("data", ()) if isinstance(item, dict)}
    try:
        now = list_train_files(Recipe(Path(RUN_CARD), settings=card["recipe"]))
        same = [one for one in now if stated.get(str(one.path)) == hash_file(one.path)]
    except (OSError, ValueError):  # dataset_info.json is broken by now
        now, same = [], []
    problem = "" if now and len(same) == len(now) else _explain_missing(model)
    return KnownTraining(same, problem, _keep_hashes(stated.get(str(one.path)) for one in now))


def _read_listed(earlier: Mapping[str, Any], model: str) -> KnownTraining:
    same, problem, hashes = [], str(earlier.get("problem") or ""), []
    for item in earlier.get("files") or ():
        try:
            hashes.append(item["sha256"])
            file = TrainFile(Path(item["file"]), item.get("max_rows"))
            is_same = hash_file(file.path) == item["sha256"]
        except (OSError, KeyError, TypeError, AttributeError, ValueError):  # not here, or an edited card
            is_same = False
        if is_same:
            same.append(file)
        else:
            problem = problem or _explain_missing(model)
    return KnownTraining(same, problem, _keep_hashes(hashes))


def _read_stack_files(model: str) -> KnownTraining:
    facts = read_facts(model)
    stated = [facts["fitted_on"], facts.get("trained_on")]
    same, hashes = [], []
    for item in stated:
        try:
            hashes.append(item["sha256"])
            place = Path(item["file"])
            if hash_file(place) == item["sha256"]:
                same.append(TrainFile(place))
        except (OSError, KeyError, TypeError, ValueError):  # not on this machine, or stack.json was edited
            continue
    problem = "" if len(same) == len(stated) else f"Not everything was compared: files that {model} was fitted on are "
    return KnownTraining(same, problem and f"{problem}missing or have changed since.", _keep_hashes(hashes))


def _keep_hashes(stated: Iterable[Any]) -> frozenset[str]:
    """Return the hashes among what files state, which may have been edited."""
    return frozenset(one for one in stated if isinstance(one, str))


def _explain_missing(model: str) -> str:
    return f"Not everything was compared: training files of {model} are missing or have changed since."


def _join(known: Sequence[KnownTraining]) -> KnownTraining:
    files = dict.fromkeys(file for one in known for file in one.files)
    hashes = frozenset[str]().union(*(one.hashes for one in known))
    return KnownTraining([*files], next((one.problem for one in known if one.problem), ""), hashes)
