"""Models, data sets and recipes that do not fit together are not offered together."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_files import write_opinions
from tiny_models import build_tiny_bert

from sentifactory.errors import SentiFactoryError
from sentifactory.task.model_folder import MANIFEST, write_model_task
from sentifactory.task.task import BINARY_SENTIMENT
from sentifactory.ui.actions import PageActions
from sentifactory.ui.compatibility import explain_data, explain_models, explain_recipe
from sentifactory.ui.error_sentences import PageError
from sentifactory.ui.fitting_lists import FittingLists
from sentifactory.ui.offered_tasks import NEW_TASK, build_new_task
from sentifactory.ui.training_settings import build_settings
from sentifactory.ui.uploaded_file import FileChoices
from sentifactory.ui.workspace import open_workspace

THREE = build_new_task(("差评", "中评", "好评"), "three")
RECIPE = "stage: encoder\nmodel_name_or_path: {model}\ndataset: a\noutput_dir: b\ntask: {task}\n"


class FakeGradio:
    """Gives the updates as they are made."""

    @staticmethod
    def update(**values: Any) -> dict[str, Any]:
        return values


@pytest.fixture(scope="module")
def actions(tmp_path_factory: pytest.TempPathFactory) -> PageActions:
    """Models of two and three classes and of none, data of three, and recipes with and without a task."""
    root = tmp_path_factory.mktemp("page")
    for name in ("plain", "two", "three"):
        folder = root / "models" / name
        folder.mkdir(parents=True)
        build_tiny_bert(folder)
    write_model_task(BINARY_SENTIMENT, root / "models" / "two")
    write_model_task(THREE, root / "models" / "three")
    card = {"status": "finished", "recipe": {"model_name_or_path": str(root / "models" / "plain")}}
    (root / "models" / "three" / "run.json").write_text(json.dumps(card))
    (root / "recipes").mkdir()
    for name, task in (("any", "null"), ("binary", "binary_sentiment")):
        text = RECIPE.format(model=root / "models" / "plain", task=task)
        (root / "recipes" / f"{name}.yaml").write_text(text)
    (root / "data").mkdir()
    actions = PageActions(open_workspace(root / "space"), (root / "models",), (root / "recipes",), (root / "data",))
    actions.prepare(str(write_opinions(root / "a.csv")), "opinions.csv", "en", FileChoices(task=NEW_TASK))
    return actions


def test_models_of_different_tasks_do_not_fit(actions: PageActions) -> None:
    models = actions.find_models()
    two, three, plain = (models[f"models/{name}"] for name in ("two", "three", "plain"))
    assert explain_models(three, plain) is None
    reason = explain_models(three, two)
    assert reason is not None
    assert "negative, neutral, positive" in reason.en
    data = actions.find_data()["opinions"]
    assert explain_data(three, data) is None
    assert explain_data(two, data) is not None
    recipes = actions.find_recipes()
    assert explain_recipe(recipes["any"].recipe, data) is None
    assert explain_recipe(recipes["binary"].recipe, data) is not None


def test_lists_hold_what_fits_and_choose_where_a_model_comes_from(actions: PageActions) -> None:
    lists = FittingLists(FakeGradio, actions)
    (base,), reasons = lists.offer_base("models/three", "models/two")
    assert (base["names"], base["first"]) == (["models/plain"], "models/plain")
    assert reasons["visible"]
    assert "models/two" in reasons["value"]
    (tests,), _ = lists.offer_tests("models/two", "opinions")
    assert (tests["names"], tests["first"]) == ([], None)
    (recipes,), _ = lists.offer_recipes("opinions")
    assert (recipes["names"], recipes["first"]) == (["any"], "any")


def test_what_does_not_fit_is_refused_by_the_actions_as_well(actions: PageActions) -> None:
    attempts: list[tuple[str, Callable[[], Any]]] = [
        ("recipe-of-data", lambda: actions.start("opinions", "binary", "")),
        ("task-of-reviews", lambda: actions.compare("models/plain", "models/two", None, "opinions")),
        ("task-conflict", lambda: actions.predict("很好", "models/two", "models/three")),
        ("models-chosen", lambda: actions.predict("很好", "models/two", "models/two")),
        ("models-chosen", lambda: actions.predict("很好", None, None)),
    ]
    for code, attempt in attempts:
        with pytest.raises(SentiFactoryError) as caught:
            attempt()
        assert caught.value.code == code


def test_prepared_data_of_other_folders_is_offered_the_newest_first(actions: PageActions, tmp_path: Path) -> None:
    source = actions.find_data()["opinions"]
    for name, time_s in (("old", 1e9), ("new", 4e9)):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for file in source.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        os.utime(folder / MANIFEST, (time_s, time_s))
    (tmp_path / "data" / "new" / "test.csv").unlink()
    (tmp_path / "data" / "not a data set").mkdir()
    found = PageActions(actions.workspace, actions.model_roots, actions.recipe_roots, (tmp_path / "data",))
    assert list(found.find_data()) == ["data/new", "opinions", "data/old"]
    lists = FittingLists(FakeGradio, found)
    assert lists.list_training_data() == ["data/new", "opinions", "data/old"]
    assert lists.list_tests("models/three") == ["opinions", "data/old"]
    settings = build_settings(found.find_recipes()["any"], found.find_data()["data/old"])
    assert settings["dataset"] == str(tmp_path / "data" / "old" / "train.csv")
    with pytest.raises(PageError) as caught:
        found.compare("models/plain", "models/three", None, "data/new")
    assert caught.value.code == "part-missing"
