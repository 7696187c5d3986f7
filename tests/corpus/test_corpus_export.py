"""Export: files that read back word for word, and a dataset_info.json whose other entries stay as they are."""

from __future__ import annotations

import csv
import json
import threading
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentifactory.corpus.cleaning import Reason, Rejected
from sentifactory.corpus.dataset_info import describe_dataset, read_dataset_info, register_datasets
from sentifactory.corpus.export import find_strangers, write_near_repeats, write_parts, write_rejected
from sentifactory.corpus.intake import RejectedRow
from sentifactory.corpus.readers import read_reviews
from sentifactory.errors import DataError
from sentifactory.records import Review, Source
from sentifactory.task import BINARY_SENTIMENT

# What no reader of CSV survives is refused when read (NUL) or cannot stand in UTF-8 (surrogates).
REVIEW_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


@given(texts=st.lists(REVIEW_TEXT, min_size=1, max_size=5))
def test_texts_come_back_word_for_word(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
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


def test_folds_have_folders_and_entries_of_their_own(tmp_path: Path) -> None:
    parts = {"fold_0/train": [Review("好", 1)], "fold_0/val": [Review("差", 0)], "test": [Review("行", 1)]}
    (tmp_path / "demo").mkdir()
    written = write_parts(tmp_path / "demo", parts, BINARY_SENTIMENT)
    assert written == ["fold_0/train.csv", "fold_0/train.jsonl", "fold_0/val.csv", "fold_0/val.jsonl", "test.csv"]
    assert register_datasets(tmp_path, "demo", list(parts)) == ["demo_fold_0_train", "demo_fold_0_val"]
    entries = read_dataset_info(tmp_path, "demo")
    assert entries["demo_fold_0_val"]["file_name"] == "demo/fold_0/val.jsonl"
    assert register_datasets(tmp_path, "demo", ["train"]) == ["demo_train"]
    assert list(read_dataset_info(tmp_path, "demo")) == ["demo_train"]
    assert find_strangers(tmp_path / "demo") == []
    (tmp_path / "demo" / "fold_0" / "mine.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "demo" / "folder").mkdir()
    assert find_strangers(tmp_path / "demo") == ["fold_0/mine.txt", "folder"]


def test_near_repeats_are_listed_by_group(tmp_path: Path) -> None:
    rows = [(0, "train", Review("好,", 1, Source("a.csv", 3))), (0, "", Review("好", 0))]
    write_near_repeats(tmp_path, rows, BINARY_SENTIMENT)
    with (tmp_path / "near_repeats.csv").open(encoding="utf-8", newline="") as stream:
        assert list(csv.reader(stream)) == [
            ["group", "part", "label", "file", "line", "text"],
            ["0", "train", "1", "a.csv", "3", "好,"],
            ["0", "", "0", "", "0", "好"],
        ]


def test_rejected_rows_stand_in_the_order_of_the_files(tmp_path: Path) -> None:
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


def test_a_file_that_says_it_already_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "dataset_info.json"
    register_datasets(tmp_path, "demo", ["train"])
    compact = json.dumps(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(compact, encoding="utf-8")
    register_datasets(tmp_path, "demo", ["train"])
    assert path.read_text(encoding="utf-8") == compact


def test_an_entry_of_a_part_that_is_gone_goes(tmp_path: Path) -> None:
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
        (b"[]", ["holds a list", "a JSON object"]),
        (b'"x"', ["holds a str"]),
        ('{"名": {}}'.encode("gbk"), ["not UTF-8"]),
        (b"[" * 100_000, ["not JSON"]),
        (b'{"demo_train": {"file_name": "mine.json"}}', ["'demo_train' is registered already", "--name"]),
        (b'{"demo_val": []}', ["'demo_val' is registered already"]),
    ],
)
def test_a_broken_dataset_info_is_a_clear_error_and_is_left_alone(
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
