"""The commands to copy after `data prepare`: they fit the data set and what is on this machine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from sentifactory.corpus.dataset.next_training import suggest_training


def make_manifest(*parts: str, **facts: Any) -> dict[str, Any]:
    return {"name": "hotel", "parts": {part: {"rows": 9} for part in parts}, "batch_size": 0, **facts}


@pytest.fixture
def stand_in_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, repo_root: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENTIFACTORY_DEVICE", "cpu")
    Path("examples").symlink_to(repo_root / "examples")
    return tmp_path


@pytest.mark.usefixtures("stand_in_repository")
def test_on_a_cpu_what_the_recipe_needs_comes_first() -> None:
    fetch, cut, train = map(shlex.split, suggest_training(make_manifest("train", "val"), "my data"))
    assert fetch[1:3] == ["model", "fetch"]
    assert cut[1:3] == ["model", "cut"]
    assert Path(train[2]).is_file()
    assert {"dataset=hotel_train", "dataset_dir=my data", "train_sampling_strategy=group_by_length"} <= {*train}
    Path(cut[3]).mkdir(parents=True)
    Path(cut[-1]).mkdir()
    (only,) = suggest_training(make_manifest("fold_0/train", "fold_0/val", batch_size=16), "data")
    assert "dataset=hotel_fold_0_train" in only
    assert "dataset_dir" not in only
    assert "train_sampling_strategy" not in only


@pytest.mark.usefixtures("stand_in_repository")
@pytest.mark.parametrize("parts", [("train", "val", "test"), ("train", "test")])
def test_on_a_gpu_the_recipe_is_one_that_can_be_read(monkeypatch: pytest.MonkeyPatch, parts: tuple[str, ...]) -> None:
    from sentifactory.training.recipe.recipe import load_recipe

    monkeypatch.setenv("SENTIFACTORY_DEVICE", "cuda")
    (command,) = suggest_training(make_manifest(*parts), "data")
    _, _, recipe, *settings = shlex.split(command)
    loaded = load_recipe(recipe, settings).settings
    assert loaded["eval_dataset"] == ("hotel_val" if "val" in parts else None)
    assert loaded["eval_strategy"] == ("steps" if "val" in parts else "no")


def test_elsewhere_there_are_no_recipes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert suggest_training(make_manifest("train"), "d") == ["sentifactory data show hotel --dataset_dir d"]
