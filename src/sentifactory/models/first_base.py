"""Whether a model was tuned, and by which run cards: they lead to the model that the first training began with.

The terms of that model are those of every model that is tuned from it, however often.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sentifactory.models.weights import ADAPTER_CONFIG
from sentifactory.system.json_text import read_json_object
from sentifactory.task.model_folder import TASK_NAME

RUN_CARD = "run.json"
# What training, ours or that of other programs, leaves beside the weights; a pretrained model has none of it.
_TUNING_RECORDS = (RUN_CARD, TASK_NAME, ADAPTER_CONFIG, "trainer_state.json")


def has_tuning_record(folder: Path) -> bool:
    """Return whether a model's folder contains a record of a training."""
    return any((folder / name).is_file() for name in _TUNING_RECORDS)


def find_first_base(model: str) -> str:
    """Return the folder or hub id of the first model; the model itself where no training of it is known.

    Where run cards name each other in a circle, because a folder was trained into again, the first model is unknown:
    the last one of the circle is returned, which has a run card.

    Args:
        model: folder or hub id.
    """
    seen = {_locate(model)}
    while (start := _find_start(model)) and (place := _locate(start)) not in seen:
        seen.add(place)
        model = start
    return model


def _find_start(model: str) -> str:
    """Return the model that the training of a model began with; "" where none is known.

    Adapters that training continues rest on the same model.
    """
    folder = Path(model).expanduser()
    recipe: Any = (read_json_object(folder / RUN_CARD) or {}).get("recipe")
    start = recipe.get("model_name_or_path") if isinstance(recipe, dict) else None
    start = start or (read_json_object(folder / ADAPTER_CONFIG) or {}).get("base_model_name_or_path")
    return start if isinstance(start, str) else ""


def _locate(model: str) -> Path:
    return Path(model).expanduser().resolve()
