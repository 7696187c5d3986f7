"""Inspected data: a single file, a prepared data set or its folds; mismatches are reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_reviews import make_reviews, write_csv, write_reviews

from sentifactory.corpus.inspection.loaded_data import load_inspected
from sentifactory.corpus.prepare import prepare_reviews
from sentifactory.errors import ConfigError, DataError
from sentifactory.task.task import BINARY_SENTIMENT, NAMED_TASKS, TASKS, Task

LABELS = BINARY_SENTIMENT.labels


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A prepared data set of 120 reviews, one repeat and one blank row."""
    reviews = make_reviews(120, LABELS)
    rows = [(review.label or 0, review.text) for review in reviews] + [(0, reviews[0].text + "！"), (1, " ")]
    write_csv(tmp_path / "shop.csv", rows)
    prepare_reviews(str(tmp_path / "shop.csv"), output_dir=tmp_path / "data")
    return tmp_path / "data" / "shop"


def test_a_single_file_is_one_part(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [(1, "很好"), (0, "很差"), (1, "多了", "一格"), (1, "　"), (1, "NA")])
    data = load_inspected(str(path))
    assert [review.text for review in data.parts["file"]] == ["很好", "很差", "NA"]
    assert [(row.line, row.reason) for row in data.rejected_rows] == [(4, "broken row"), (5, "empty")]
    assert (data.name, data.is_prepared, data.changed_files()) == ("a.csv", False, [])


@pytest.mark.parametrize("by_folder", [False, True])
def test_a_prepared_data_set_is_found_by_name_and_by_folder(prepared: Path, by_folder: bool) -> None:
    data = load_inspected(str(prepared) if by_folder else "shop", dataset_dir=prepared.parent)
    manifest = json.loads((prepared / "manifest.json").read_text(encoding="utf-8"))
    assert {part: len(reviews) for part, reviews in data.parts.items()} == {
        part: figures["rows"] for part, figures in manifest["parts"].items()
    }
    assert len(data.rejected_rows) == manifest["rows"]["rejected"] >= 2
    assert {row.reason for row in data.rejected_rows} >= {"repeat", "empty"}
    assert data.part_of() == [part for part, reviews in data.parts.items() for _ in reviews]
    assert data.changed_files() == []


def test_a_file_that_was_changed_by_hand_is_noticed(prepared: Path) -> None:
    with (prepared / "val.csv").open("a", encoding="utf-8") as stream:
        stream.write('1,"后来加上的"\n')
    assert load_inspected(str(prepared)).changed_files() == ["val.csv"]


def test_every_review_of_the_folds_is_inspected_once(tmp_path: Path) -> None:
    write_reviews(tmp_path / "shop.csv", make_reviews(60, LABELS))
    prepare_reviews(str(tmp_path / "shop.csv"), output_dir=tmp_path / "data", folds=3)
    data = load_inspected("shop", dataset_dir=tmp_path / "data")
    assert list(data.parts) == ["fold_0/val", "fold_1/val", "fold_2/val", "test"]
    assert len({review.text for review in data.reviews()}) == len(data.reviews()) == 60
    assert data.changed_files() == []


def test_an_unknown_name_is_a_clear_error(prepared: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_inspected("shpo", dataset_dir=prepared.parent)
    assert "There is no file and no prepared data set 'shpo'" in str(caught.value)
    assert "(shop)" in str(caught.value)
    assert "data prepare shpo" in str(caught.value)


def test_a_custom_task_must_be_named(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = prepared / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["task"]["name"] = "mine"
    path.write_text(json.dumps(manifest), encoding="utf-8")
    assert load_inspected(str(prepared)).task.name == "mine"
    del manifest["task"]["answer_values"]  # as older versions wrote it
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"'mine'.*, which is not built in.*--task"):
        load_inspected(str(prepared))
    prompt = manifest["task"]["prompt_template"]
    monkeypatch.setitem(TASKS, "mine", Task("mine", ("negative", "positive"), "s", (0, 1), prompt))
    assert load_inspected(str(prepared)).task.name == "mine"
    monkeypatch.setitem(NAMED_TASKS, "other", Task("other", ("bad", "fair", "good"), "s", (0, 1, 2), "{text}?"))
    with pytest.raises(ConfigError, match=r"mine \(negative, positive\), and not for other \(bad, fair, good\)"):
        load_inspected(str(prepared), task_name="other")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("manifest.json", "{", "manifest is not JSON"),
        ("manifest.json", "[]", "names no task"),
        ("rejected.csv", "file,line,reason,detail,label,text\na,x,empty,,,\n", "rejected rows is broken"),
        ("rejected.csv", "line,text\n1,x\n", "rejected rows is broken"),
    ],
)
def test_a_damaged_folder_is_a_clear_error(prepared: Path, file: str, content: str, words: str) -> None:
    (prepared / file).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        load_inspected(str(prepared))


def test_a_folder_without_parts(prepared: Path) -> None:
    for part in ("train", "val", "test"):
        (prepared / f"{part}.csv").unlink()
    with pytest.raises(DataError, match=r"none of the files train\.csv"):
        load_inspected(str(prepared))
