"""The settings of a training on the page: those of a recipe, for the data set that was chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sentifactory.corpus.dataset.dataset_info import name_dataset
from sentifactory.training.recipe.recipe import is_encoder_recipe
from sentifactory.ui.model_choices import OfferedRecipe


def build_settings(offered: OfferedRecipe, folder: Path) -> dict[str, Any]:
    """Return the settings of a recipe with another data set, in a folder, in place of its own."""
    settings, folder = dict(offered.recipe.settings), folder.resolve()
    has_validation = (folder / "val.csv").is_file()
    if is_encoder_recipe(offered.recipe):
        settings["dataset"] = str(folder / "train.csv")
        settings["eval_dataset"] = str(folder / "val.csv") if has_validation else None
        if not has_validation:
            settings["early_stopping_patience"] = 0
    else:
        settings |= {"dataset": name_dataset(folder.name, "train"), "dataset_dir": str(folder.parent)}
        if settings.get("eval_dataset"):
            settings["eval_dataset"] = name_dataset(folder.name, "val")
        # suits only the order of the recipe's own data
        if settings.get("train_sampling_strategy") == "sequential":
            settings["train_sampling_strategy"] = "group_by_length"
    return {key: value for key, value in settings.items() if value is not None}
