"""The list of models that the page offers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sentifactory.ui import model_choices


def test_a_model_that_is_removed_while_the_list_is_made_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(model_choices, "_walk_models", lambda *_: iter([tmp_path / "removed", tmp_path / "kept"]))
    assert list(model_choices.find_models({"saves": tmp_path})) == ["saves/kept", "saves/removed"]


@pytest.mark.parametrize("base", ["pretrained/old", "elsewhere/old"])  # or trained on another machine
def test_the_base_of_the_tuned_model_is_chosen_and_not_the_newest(tmp_path: Path, base: str) -> None:
    tuned = tmp_path / "tuned"
    tuned.mkdir()
    card = {"status": "finished", "recipe": {"model_name_or_path": str(tmp_path / base)}}
    (tuned / "run.json").write_text(json.dumps(card), encoding="utf-8")
    models = {"ui/mine": tuned} | {f"pretrained/{name}": tmp_path / "pretrained" / name for name in ("new", "old")}
    assert model_choices.choose_sides(models) == ("pretrained/old", "ui/mine")
    del models["pretrained/old"]
    assert model_choices.choose_sides(models) == ("pretrained/new", "ui/mine")
