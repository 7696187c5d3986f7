"""Training refuses data that contain validation or test reviews."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sentifactory.corpus.dataset.dataset_files import write_parts
from sentifactory.corpus.leakage.leak_guard import LeakFinding
from sentifactory.errors import DataError, LeakError
from sentifactory.records import Review
from sentifactory.task.task import BINARY_SENTIMENT
from sentifactory.training.recipe.known_training import list_train_files
from sentifactory.training.recipe.recipe import Recipe
from sentifactory.training.recipe.recipe_leaks import check_recipe_leaks
from sentifactory.training.run.run_card import begin_card, describe_data, write_card

SEEN = "早餐很丰盛，房间也很干净，下次还会再来住"
NEARLY = "早餐很丰盛，房间也很干净，下回还会再来住！"
TRAIN = [Review("运费太贵了，等了整整一个星期才到", 0), Review("屏幕清晰，运行流畅，值得购买", 1), Review(SEEN, 1)]
OTHER = [Review("没有人说过这样的一句话，谁也没有", 0)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with the data set mine, whose test part contains a near duplicate of its last training review."""
    folder = tmp_path / "data"
    (folder / "mine").mkdir(parents=True)
    parts = {"train": TRAIN, "val": OTHER, "test": [*OTHER, Review(NEARLY, 1)]}
    write_parts(folder / "mine", parts, BINARY_SENTIMENT)
    names = ["train.jsonl", "val.jsonl", "train.csv", "val.csv", "test.csv"]
    manifest: dict[str, Any] = {"outputs": {name: {"sha256": ""} for name in names}}
    manifest |= {"leak_check": {}, "near_repeats": {}, "versions": {}, "parts": {}}
    (folder / "mine" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    register = {f"mine_{part}": {"file_name": f"mine/{part}.jsonl"} for part in ("train", "val")}
    (folder / "dataset_info.json").write_text(json.dumps({**register, "hub": {"hf_hub_url": "a/b"}}))
    return folder


def make_recipe(data: Path, **settings: Any) -> Recipe:
    merged = {"dataset": "mine_train", "dataset_dir": str(data), "output_dir": "out", **settings}
    return Recipe(data / "none.yaml", settings=merged)


def test_the_test_file_next_to_the_training_file_is_found(data: Path) -> None:
    with pytest.raises(LeakError, match=r"test\.csv, line 3 duplicates .*train\.jsonl, line 3 \(near") as caught:
        check_recipe_leaks(make_recipe(data), [], allow_leaks=False)
    assert caught.value.exit_code == 3
    assert "--allow_leaks" in str(caught.value)


def test_an_allowed_leak_comes_first_in_the_run_card(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = make_recipe(data)
    leaks = check_recipe_leaks(recipe, [], allow_leaks=True)
    assert capsys.readouterr().err.startswith(
        "WARNING: the evaluation is contaminated (--allow_leaks). 1 of the 3 held-out"
    )
    card = begin_card(recipe, recipe.settings, [], leaks)
    assert next(iter(card)) == "warning"
    assert card["leak_check"]["compared"]["n_pairs"] == 1
    assert card["leak_check"]["status"] == "leaks"


def test_rows_that_are_not_trained_on_do_not_leak(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaks = check_recipe_leaks(make_recipe(data, max_samples=2), [], allow_leaks=False)
    assert leaks.status == "clean"
    assert "None of the 3 held-out reviews is among the 2 training reviews" in capsys.readouterr().err
    recipe = make_recipe(data, max_samples=2)
    assert "warning" not in begin_card(recipe, recipe.settings, [], leaks)


def test_eval_dataset_and_named_files_are_compared(data: Path, tmp_path: Path) -> None:
    (data / "mine" / "manifest.json").unlink()
    assert check_recipe_leaks(make_recipe(data), [], allow_leaks=False).status == "not checked"
    clean = check_recipe_leaks(make_recipe(data, eval_dataset="mine_val"), [], allow_leaks=False)
    assert (clean.status, clean.test_files) == ("clean", (str(data / "mine" / "val.jsonl"),))
    with pytest.raises(LeakError, match=r"3 of the 3 held-out reviews"):
        check_recipe_leaks(make_recipe(data, eval_dataset="mine_train"), [], allow_leaks=False)
    with pytest.raises(LeakError, match=r"test\.csv, line 3 duplicates"):
        check_recipe_leaks(make_recipe(data), [data / "mine" / "test.csv"], allow_leaks=False)
    with pytest.raises(DataError, match="does not exist"):
        check_recipe_leaks(make_recipe(data), [tmp_path / "gone.csv"], allow_leaks=False)


def test_what_the_starting_model_has_learned_counts(data: Path, tmp_path: Path) -> None:
    recipe = make_recipe(data)
    start = tmp_path / "start"
    write_card(start, begin_card(recipe, recipe.settings, describe_data(recipe.settings), LeakFinding()))
    other = tmp_path / "other.jsonl"
    other.write_text('{"messages": [{"role": "user", "content": "又一条"}, {"role": "assistant", "content": "0"}]}\n')
    info = json.loads((data / "dataset_info.json").read_text(encoding="utf-8"))
    info["other"] = {"file_name": str(other), "formatting": "sharegpt"}
    (data / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    seen = [data / "mine" / "test.csv"]
    assert check_recipe_leaks(make_recipe(data, dataset="other"), seen, allow_leaks=False).status == "clean"
    further = make_recipe(data, dataset="other", model_name_or_path=str(start))
    with pytest.raises(LeakError, match=r"test\.csv, line 3 duplicates"):
        check_recipe_leaks(further, seen, allow_leaks=False)
    card = begin_card(further, further.settings, describe_data(further.settings), LeakFinding())
    assert [Path(one["file"]).name for one in card["earlier_training"]["files"]] == ["train.jsonl"]


def test_test_reviews_must_not_select_the_checkpoint(data: Path, tmp_path: Path) -> None:
    test = tmp_path / "test.csv"
    test.write_text(f"text\n{OTHER[0].text}\n", encoding="utf-8")
    watching = make_recipe(data, max_samples=2, eval_dataset="mine_val")
    assert check_recipe_leaks(watching, [test], allow_leaks=False).status == "clean"
    # An encoder recipe keeps the best weights by its eval_dataset without any setting.
    for words in ({"load_best_model_at_end": True}, {"early_stopping_steps": 2}, {"stage": "encoder"}):
        choosing = make_recipe(data, max_samples=2, eval_dataset="mine_val", **words)
        with pytest.raises(LeakError, match=r"2 of the 3 test reviews are among the 1 validation reviews"):
            check_recipe_leaks(choosing, [test], allow_leaks=False)
        assert check_recipe_leaks(choosing, [test], allow_leaks=True).status == "leaks"


def test_an_unreadable_file_does_not_hide_leaks_in_others(data: Path) -> None:
    (data / "mine" / "strange.jsonl").write_text('{"a": 1}\n{"a": 2}\n', encoding="utf-8")
    info = json.loads((data / "dataset_info.json").read_text(encoding="utf-8"))
    info["strange"] = {"file_name": "mine/strange.jsonl"}
    (data / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    with pytest.raises(LeakError, match=r"1 of the 3 held-out reviews"):
        check_recipe_leaks(make_recipe(data, dataset="strange,mine_train"), [], allow_leaks=False)
    clean = check_recipe_leaks(make_recipe(data, dataset="strange,mine_train", max_samples=2), [], allow_leaks=False)
    assert clean.status == "not checked"
    assert "Not everything was compared" in clean.problem
    assert "None of the 3 held-out reviews is among the 2 training reviews" in clean.summarise()


def test_a_file_without_reviews_is_reported_and_not_refused(data: Path) -> None:
    (data / "mine" / "train.jsonl").write_text('{"a": 1}\n{"a": 2}\n', encoding="utf-8")
    finding = check_recipe_leaks(make_recipe(data), [], allow_leaks=False)
    assert finding.status == "not checked"
    assert "cannot be read as reviews" in finding.summarise()
    assert list_train_files(make_recipe(data, dataset="hub")) == []
    assert "not local files" in check_recipe_leaks(make_recipe(data, dataset="hub"), [], allow_leaks=False).problem
