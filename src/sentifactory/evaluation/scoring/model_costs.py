"""What a model costs besides its mistakes: how large it is, and how long it was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sentifactory.engines.local.stack_folder import find_member
from sentifactory.models.weights import list_weights
from sentifactory.training.run.run_card import read_card


def read_costs(model: str) -> dict[str, Any]:
    """Return `size_bytes` of a model's weights and `train_s` of its run card; unknown ones are absent.

    Args:
        model: a folder; a name at an address or on a hub has no known costs.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return {}
    member = Path(find_member(str(folder)))  # of a stack, whose own weights are those of TF-IDF
    files = {*list_weights(folder), *list_weights(member)}
    costs: dict[str, Any] = {"size_bytes": sum(file.stat().st_size for file in files)} if files else {}
    card = read_card(member) or {}
    # The wall time is that of the last session only, and the time of the steps excludes the cached frozen layers.
    times = [(card.get("speed") or {}).get("train_time_s"), card.get("wall_time_s")]
    if known := [seconds for seconds in times if isinstance(seconds, int | float)]:
        costs["train_s"] = max(known)
    return costs
