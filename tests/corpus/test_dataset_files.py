"""Written files are read back exactly, and other entries of dataset_info.json stay unchanged."""

from __future__ import annotations

import csv
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentifactory.corpus.dataset.dataset_files import (
    find_unknown_files,
    write_near_repeats,
    write_parts,
    write_rejected,
)
from sentifactory.corpus.dataset.dataset_info import describe_dataset, read_dataset_info, register_datasets
from sentifactory.corpus.reading.read_result import RejectedRow
from sentifactory.corpus.reading.review_files import read_reviews
from sentifactory.errors import DataError
from sentifactory.records import Reason, Rejected, Review, Source
from sentifactory.task.task import BINARY_SENTIMENT

# NUL is refused when a file is read, and UTF-8 cannot encode surrogates.
REVIEW_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


@given(texts=st.lists(REVIEW_TEXT, min_size=1, max_size=5))
def test_texts_are_read_back_exactly(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("export")
    reviews = [Review(text, number % 2) for number, text in enumerate(texts)]
    write_parts(folder, {"train": reviews}, BINARY_SENTIMENT)
    back = read_reviews(folder / "train.csv", BINARY_SENTIMENT)
    assert [(review.text, review.label) for review in back] == [(review.text, review.label) for review in reviews]
    lines = (folder / "train.jsonl").read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    assert [json.loads(line)["messages"] for line in lines] == [
        BINARY_SENTIMENT.render_messages(review.text, review.label) for review in reviews
    ]


def test_pandas_reads_the_same(tmp_path: Path) -> None:
    texts = ['他说"好",\n真的', "a\rb", "NA", " 空 格 "]
    write_parts(tmp_path, {"train": [Review(text, 1) for text in texts]}, BINARY_SENTIMENT)
    frame = pd.read_csv(tmp_path / "train.csv", keep_default_na=False)
    assert list(frame.columns) == ["label", "text"]
    assert frame["text"].tolist() == texts
    assert frame["label"].tolist() == [1, 1, 1, 1]


def test_parts_without_reviews_get_no_file_and_test_gets_no_jsonl(tmp_path: Path) -> None:
    parts = {"train": [Review("好", 1)], "val": [], "test": [Review("差", 0)]}
    written = write_parts(tmp_path, parts, BINARY_SENTIMENT)
    assert sorted(written) == sorted(path.name for path in tmp_path.iterdir())
    assert sorted(written) == ["test.csv", "train.csv", "train.jsonl"]


def test_alpaca_form(tmp_path: Path) -> None:
    write_parts(tmp_path, {"train": [Review("好{x}", 1)]}, BINARY_SENTIMENT, "alpaca")
    assert json.loads((tmp_path / "train.jsonl").read_text(encoding="utf-8")) == {
        "instruction": BINARY_SENTIMENT.render_prompt("好{x}"),
        "input": "",
        "output": '{"sentiment": 1}',
    }
    entry = describe_dataset("demo", "train", "alpaca")
    assert entry["columns"] == {"prompt": "instruction", "query": "input", "response": "output"}
    assert entry["formatting"] == "alpaca"


@pytest.mark.parametrize("formatting", ["sharegpt", "alpaca"])
@pytest.mark.parametrize(
    "prompt",
    ["{text}", "user{text}", "content{text}", "{text}input", '{"messages": {text}', '{text}{"a": 1}{}', "{{text}}"],
)
def test_a_prompt_of_any_form_is_written_as_it_is_rendered(tmp_path: Path, prompt: str, formatting: str) -> None:
    task = replace(BINARY_SENTIMENT, prompt_template=prompt, answer_key="content", answer_values=("", "user"))
    reviews = [Review("好{text}", 1), Review("user", 0), Review('"input": ""', 1)]
    write_parts(tmp_path, {"train": reviews}, task, formatting)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows == [
        {"messages": task.render_messages(one.text, one.label)}
        if formatting == "sharegpt"
        else task.render_alpaca(one.text, one.label or 0)
        for one in reviews
    ]


def test_domains_are_a_third_column(tmp_path: Path) -> None:
    parts = {"train": [Review("好", 1, None, "书")], "test": [Review("差", 0)]}
    write_parts(tmp_path, parts, BINARY_SENTIMENT)
    assert (tmp_path / "train.csv").read_text(encoding="utf-8") == 'label,text,domain\n1,"好","书"\n'
    assert (tmp_path / "test.csv").read_text(encoding="utf-8") == 'label,text,domain\n0,"差",""\n'
    back = read_reviews(tmp_path / "train.csv", BINARY_SENTIMENT)
    assert (back[0].label, back[0].text) == (1, "好")


def test_folds_have_their_own_folders_and_entries(tmp_path: Path) -> None:
    parts = {"fold_0/train": [Review("好", 1)], "fold_0/val": [Review("差", 0)], "test": [Review("行", 1)]}
    (tmp_path / "demo").mkdir()
    written = write_parts(tmp_path / "demo", parts, BINARY_SENTIMENT)
    assert written == ["fold_0/train.csv", "fold_0/train.jsonl", "fold_0/val.csv", "fold_0/val.jsonl", "test.csv"]
    assert register_datasets(tmp_path, "demo", list(parts)) == ["demo_fold_0_train", "demo_fold_0_val"]
    entries = read_dataset_info(tmp_path, "demo")
    assert entries["demo_fold_0_val"]["file_name"] == "demo/fold_0/val.jsonl"
    assert register_datasets(tmp_path, "demo", ["train"]) == ["demo_train"]
    assert list(read_dataset_info(tmp_path, "demo")) == ["demo_train"]
    for foreign in ("", "{}", '{"task": "mine"}'):
        (tmp_path / "demo" / "manifest.json").write_text(foreign, encoding="utf-8")
        assert find_unknown_files(tmp_path / "demo") == ["fold_0", "manifest.json", "test.csv"]
    (tmp_path / "demo" / "manifest.json").write_text('{"task": {"labels": ["a", "b"]}}', encoding="utf-8")
    assert find_unknown_files(tmp_path / "demo") == []
    (tmp_path / "demo" / "val.csv").mkdir()
    (tmp_path / "demo" / "train.csv").symlink_to(tmp_path / "mine.csv")
    assert find_unknown_files(tmp_path / "demo") == ["train.csv", "val.csv"]
    (tmp_path / "demo" / "val.csv").rmdir()
    (tmp_path / "demo" / "train.csv").unlink()
    (tmp_path / "demo" / "fold_0" / "mine.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "demo" / "folder").mkdir()
    assert find_unknown_files(tmp_path / "demo") == ["fold_0/mine.txt", "folder"]


def test_near_duplicates_are_listed_by_group(tmp_path: Path) -> None:
    rows = [(0, "train", Review("好,", 1, Source("a.csv", 3))), (0, "", Review("好", 0))]
    write_near_repeats(tmp_path, rows, BINARY_SENTIMENT)
    with (tmp_path / "near_repeats.csv").open(encoding="utf-8", newline="") as stream:
        assert list(csv.reader(stream)) == [
            ["group", "part", "label", "file", "line", "text"],
            ["0", "train", "1", "a.csv", "3", "好,"],
            ["0", "", "0", "", "0", "好"],
        ]


def test_rejected_rows_are_in_the_order_of_the_files(tmp_path: Path) -> None:
    rejected: list[Rejected | RejectedRow] = [
        Rejected(Review("好", 1, Source("b.csv", 3)), Reason.REPEAT, "as b.csv, line 2"),
        Rejected(Review(" ", None, Source("a.csv", 12)), Reason.EMPTY),
        Rejected(Review("差,\n", 0, Source("a.csv", 7)), Reason.SURPLUS),
        RejectedRow(Source("a.csv", 9), Reason.UNKNOWN_LABEL, "行", "the label is '3'"),
    ]
    write_rejected(tmp_path, rejected, BINARY_SENTIMENT)
    with (tmp_path / "rejected.csv").open(encoding="utf-8", newline="") as stream:
        assert list(csv.reader(stream)) == [
            ["file", "line", "reason", "detail", "label", "text"],
            ["a.csv", "7", "surplus", "", "0", "差,\n"],
            ["a.csv", "9", "unknown label", "the label is '3'", "", "行"],
            ["a.csv", "12", "empty", "", "", " "],
            ["b.csv", "3", "repeat", "as b.csv, line 2", "1", "好"],
        ]


def test_a_dataset_info_keeps_its_link_and_mode(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "shared.json").write_text('{"a": {"rate": 1.50, "n": 2e3}}', encoding="utf-8")
    (tmp_path / "shared.json").chmod(0o600)
    (tmp_path / "data" / "dataset_info.json").symlink_to("../shared.json")
    register_datasets(tmp_path / "data", "demo", ["train"])
    assert (tmp_path / "data" / "dataset_info.json").is_symlink()
    assert [*json.loads((tmp_path / "shared.json").read_text(encoding="utf-8"))] == ["a", "demo_train"]
    assert (tmp_path / "shared.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to(os.devnull)])
def test_a_dataset_info_that_is_not_a_file_is_refused_early(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "dataset_info.json")
    with pytest.raises(DataError, match="not a file"):
        register_datasets(tmp_path, "demo", ["train"])


def test_other_entries_stay_and_ours_are_renewed(tmp_path: Path) -> None:
    path = tmp_path / "dataset_info.json"
    mine = {
        "我的数据": {"hf_hub_url": "某人/数据", "ranking": False},
        "alpaca": {"file_name": "alpaca.json", "x": [1.5]},
    }
    stale = {**describe_dataset("demo", "train"), "tags": {"role_tag": "from"}}
    path.write_text(json.dumps({**mine, "demo_train": stale}), encoding="utf-8")
    assert register_datasets(tmp_path, "demo", ["train", "val", "test"]) == ["demo_train", "demo_val"]
    after = json.loads(path.read_text(encoding="utf-8"))
    assert list(after)[:2] == list(mine)
    assert after == {
        **mine,
        "demo_train": describe_dataset("demo", "train"),
        "demo_val": describe_dataset("demo", "val"),
    }
    assert [child.name for child in tmp_path.iterdir()] == ["dataset_info.json"]


def test_an_up_to_date_dataset_info_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "dataset_info.json"
    register_datasets(tmp_path, "demo", ["train"])
    compact = json.dumps(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(compact, encoding="utf-8")
    register_datasets(tmp_path, "demo", ["train"])
    assert path.read_text(encoding="utf-8") == compact


def test_entries_of_removed_parts_are_removed(tmp_path: Path) -> None:
    register_datasets(tmp_path, "demo", ["train", "val"])
    assert register_datasets(tmp_path, "demo", ["train", "test"]) == ["demo_train"]
    assert list(read_dataset_info(tmp_path, "demo")) == ["demo_train"]


def test_no_entry_is_lost_between_processes_that_register_at_once(tmp_path: Path) -> None:
    names = [f"set{number}" for number in range(24)]
    threads = [threading.Thread(target=register_datasets, args=(tmp_path, name, ["train"])) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(read_dataset_info(tmp_path, "x")) == {f"{name}_train" for name in names}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["line 1", "not JSON"]),
        (b'{\n "a": {},\n}', ["line 3", "not JSON"]),
        (b"[]", ["holds a JSON list", "a JSON object"]),
        (b'"x"', ["holds a JSON str"]),
        ('{"名": {}}'.encode("gbk"), ["not UTF-8"]),
        (b"[" * 100_000, ["not JSON"]),
        (b'{"a": {"file_name": "x"},\n "a": {"file_name": "y"}}', ["'a' occurs twice"]),
        (b'{"a": {"columns": {"x": 1, "x": 2}}}', ["'x' occurs twice"]),
        (b'{"a": {"rate": 1e999}}', ["would change when"]),
        (b'{"a": {"rate": 0.12345678901234567891}}', ["would change when"]),
        (b'{"demo_train": {"file_name": "mine.json"}}', ["'demo_train' is registered already", "--name"]),
        (b'{"demo_val": []}', ["'demo_val' is registered already"]),
    ],
)
def test_a_broken_dataset_info_is_an_error_and_stays_unchanged(
    tmp_path: Path, content: bytes, words: list[str]
) -> None:
    path = tmp_path / "dataset_info.json"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        register_datasets(tmp_path, "demo", ["train", "val"])
    for word in [str(path), *words]:
        assert word in caught.value.describe()
    assert path.read_bytes() == content
    assert [child.name for child in tmp_path.iterdir()] == ["dataset_info.json"]
