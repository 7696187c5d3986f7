"""The message for each kind of invalid data: `expected/errors.txt`."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
from expected_words import compare_words
from typer.main import get_command
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.corpus.reading.review_files import read_source
from sentifactory.errors import DataError, SentiFactoryError
from sentifactory.task.task import BINARY_SENTIMENT

HEAD = b"label,text\n"
ROWS = "".join(f"{n % 2},第{n}家{'好' if n % 2 else '差'}\n" for n in range(40)).encode()
MANIFEST = {"source": "a.csv", "task": {"name": "binary_sentiment", "labels": ["negative", "positive"]}}

# Of each case: the files that are there, and the words after `sentifactory data`.
CASES: dict[str, tuple[dict[str, bytes], str]] = {
    "no file": ({}, "prepare nowhere"),
    "no such csv": ({}, "show nowhere.csv"),
    "a folder without splits": ({"folder/a.csv": HEAD + ROWS}, "prepare folder"),
    "a split twice": ({"folder/train.csv": HEAD + ROWS, "folder/train.tsv": HEAD}, "prepare folder"),
    "an old workbook": ({"a.xls": b"x"}, "prepare a.xls"),
    "no ending": ({"reviews": b"x"}, "prepare reviews"),
    "nothing in it": ({"a.csv": b""}, "prepare a.csv"),
    "blank lines": ({"a.csv": b"\n \n\n"}, "prepare a.csv"),
    "a header alone": ({"a.csv": HEAD}, "prepare a.csv"),
    "no text column": ({"a.csv": b"label,words\n1,x\n"}, "prepare a.csv"),
    "no label column": ({"a.csv": b"text,mark\nx,1\n"}, "prepare a.csv"),
    "two text columns": ({"a.csv": b"text,review,label\nx,y,1\n"}, "prepare a.csv"),
    "a column twice": ({"a.csv": b"text,text,label\nx,y,1\n"}, "prepare a.csv"),
    "a column that is not there": ({"a.csv": HEAD + ROWS}, "prepare a.csv --text_column words"),
    "a broken header": ({"a.csv": b'"label,text\n1,x\n'}, "prepare a.csv"),
    "rows of three cells": ({"a.csv": HEAD + b"1,x,y\n0,x,y\n"}, "prepare a.csv"),
    "stars": ({"a.csv": HEAD + b"".join(b"%d,x%d\n" % (n % 5 + 1, n) for n in range(30))}, "prepare a.csv"),
    "a map that names none": (
        {"a.csv": HEAD + b"".join(b"%s,x%d\n" % (b"so", n) for n in range(30))},
        "prepare a.csv --label_map yes=positive",
    ),
    "no labels": ({"a.csv": HEAD + ROWS + b"".join(b",y%d\n" % n for n in range(60))}, "prepare a.csv"),
    "stars or labels": ({"a.csv": b"rating,text\n" + b"".join(b"1,x%d\n" % n for n in range(9))}, "prepare a.csv"),
    "labels or stars": (
        {"a.csv": HEAD + b"".join(b"1,x%d\n" % n for n in range(9))},
        "prepare a.csv --star_threshold 3",
    ),
    "stars without a line": ({"a.csv": b"rating,text\n1,x\n5,y\n"}, "prepare a.csv"),
    "a line beyond the stars": ({"a.csv": b"rating,text\n1,x\n5,y\n"}, "prepare a.csv --star_threshold 5"),
    "a line where no stars are": ({"a.csv": HEAD + ROWS}, "prepare a.csv --star_threshold 3"),
    "shares": ({"a.csv": b"score,text\n0.91,x\n0.07,y\n"}, "prepare a.csv"),
    "three classes": ({"a.csv": HEAD + ROWS + b"".join(b"2,y%d\n" % n for n in range(9))}, "prepare a.csv"),
    "one word too many": (
        {"a.csv": HEAD + b"".join(b"%s,x%d\n" % (("neg", "meh", "pos")[n % 3].encode(), n) for n in range(30))},
        "prepare a.csv",
    ),
    "a hundred points": ({"a.csv": HEAD + b"".join(b"%d,x%d\n" % (n, n) for n in range(99))}, "prepare a.csv"),
    "a line of another scale": ({"a.csv": b"score,text\n20,x\n90,y\n"}, "prepare a.csv --star_threshold 3"),
    "words of four kinds": (
        {
            "a.csv": HEAD
            + "".join(f"{['力荐', '推荐', '还行', '较差', '很差'][n % 5]},x{n}\n" for n in range(30)).encode()
        },
        "prepare a.csv",
    ),
    "words of three kinds": (
        {"a.csv": HEAD + "".join(f"{'甲乙丙'[n % 3]},x{n}\n" for n in range(30)).encode()},
        "prepare a.csv",
    ),
    "minus one": ({"a.csv": HEAD + ROWS + b"-1,x\n"}, "prepare a.csv"),
    "other words": ({"a.csv": HEAD + b"".join(b"%s,x%d\n" % (b"so", n) for n in range(30))}, "prepare a.csv"),
    "one label alone": ({"a.csv": HEAD + b"".join(b"1,x%d\n" % n for n in range(30))}, "prepare a.csv"),
    "all in conflict": ({"a.csv": HEAD + b"1,x\n0,x\n"}, "prepare a.csv"),
    "no encoding": ({"a.csv": HEAD + b"1,\xff\xfe\xfa\x80\x81\n" * 3}, "prepare a.csv"),
    "cut off in utf-16": ({"a.csv": "label,text\n1,很好\n".encode("utf-16")[:-1]}, "prepare a.csv"),
    "cut off in utf-32": ({"a.csv": "label,text\n1,很好\n".encode("utf-32")[:-1]}, "prepare a.csv"),
    "an encoding that is none": ({"a.csv": HEAD + ROWS}, "prepare a.csv --encoding utf-99"),
    "lines that are no json": ({"a.jsonl": b"text\nlabel\n"}, "prepare a.jsonl"),
    "a json that breaks off": ({"a.json": b'[{"text": "x", "label": 1},\n {"text"'}, "prepare a.json"),
    "a json without rows": ({"a.json": b"[]"}, "prepare a.json"),
    "a json of another shape": ({"a.json": b'"x"'}, "prepare a.json"),
    "a json of two lists": ({"a.json": b'{"a": [{"text": "x"}], "b": [{"text": "y"}]}'}, "prepare a.json"),
    "no parquet": ({"a.parquet": b"x" * 99}, "prepare a.parquet"),
    "no workbook": ({"a.xlsx": b"x" * 99}, "prepare a.xlsx"),
    "a map and stars": ({"a.csv": HEAD + ROWS}, "prepare a.csv --label_map a=positive --star_threshold 3"),
    "a map without a label": ({"a.csv": HEAD + ROWS}, "prepare a.csv --label_map a=good"),
    "a map that is no pair": ({"a.csv": HEAD + ROWS}, "prepare a.csv --label_map a"),
    "a map that says twice": ({"a.csv": HEAD + ROWS}, "prepare a.csv --label_map a=positive --label_map a=negative"),
    "a threshold of nothing": ({"a.csv": HEAD + ROWS}, "prepare a.csv --star_threshold 0"),
    "a size of minus one": ({"a.csv": HEAD + ROWS}, "prepare a.csv --val_size -1"),
    "a size of one and a half": ({"a.csv": HEAD + ROWS}, "prepare a.csv --test_size 1.5"),
    "sizes that leave nothing": ({"a.csv": HEAD + ROWS}, "prepare a.csv --test_size 40 --val_size 0"),
    "classes of another kind": ({"a.csv": HEAD + ROWS}, "prepare a.csv --eval_classes even"),
    "too few to train on": ({"a.csv": HEAD + ROWS}, "prepare a.csv --max_train 1"),
    "a balance that is none": ({"a.csv": HEAD + ROWS}, "prepare a.csv --balance sideways"),
    "one fold": ({"a.csv": HEAD + ROWS}, "prepare a.csv --folds 1"),
    "folds with a val part": ({"a.csv": HEAD + ROWS}, "prepare a.csv --folds 3 --val_size 5"),
    "a domain that is none": ({"a.csv": HEAD + ROWS}, "prepare a.csv --holdout_domain books"),
    "a limit without a tokenizer": ({"a.csv": HEAD + ROWS}, "prepare a.csv --max_tokens 9"),
    "a leak choice that is none": ({"a.csv": HEAD + ROWS}, "prepare a.csv --on_leak ignore"),
    "a conflict choice that is none": ({"a.csv": HEAD + ROWS}, "prepare a.csv --on_conflict first"),
    "a batch of minus one": ({"a.csv": HEAD + ROWS}, "prepare a.csv --batch_size -1"),
    "a form that is none": ({"a.csv": HEAD + ROWS}, "prepare a.csv --formatting chatml"),
    "a name with a comma": ({"a.csv": HEAD + ROWS}, "prepare a.csv --name a,b"),
    "a task that is none": ({"a.csv": HEAD + ROWS}, "prepare a.csv --task moods"),
    "a folder that is a file": ({"a.csv": HEAD + ROWS, "data": b""}, "prepare a.csv"),
    "a folder of somebody else": ({"a.csv": HEAD + ROWS, "data/a/diary.txt": b"x"}, "prepare a.csv"),
    "a register that is none": ({"a.csv": HEAD + ROWS, "data/dataset_info.json": b"[1]"}, "prepare a.csv"),
    "official splits that share": ({"f/train.csv": HEAD + ROWS, "f/test.csv": HEAD + ROWS[:60]}, "prepare f"),
    "official splits and more": (
        {"f/train.csv": HEAD + ROWS, "f/test.csv": HEAD + b"1,other\n", "a.csv": HEAD + ROWS},
        "prepare f a.csv",
    ),
    "no prepared set of the name": ({"data/shop/manifest.json": json.dumps(MANIFEST).encode()}, "show shap"),
    "a prepared set without parts": ({"data/shop/manifest.json": json.dumps(MANIFEST).encode()}, "show shop"),
    "a manifest that is no json": ({"data/shop/manifest.json": b"{"}, "show shop"),
    "a manifest without a task": ({"data/shop/manifest.json": b"{}"}, "show shop"),
    "a task that is gone": (
        {"data/shop/manifest.json": json.dumps({"task": {"name": "moods", "labels": []}}).encode()},
        "show shop",
    ),
    "a task with other labels": (
        {
            "data/shop/manifest.json": json.dumps(
                {"task": {"name": "binary_sentiment", "labels": ["bad", "good"]}}
            ).encode(),
            "data/shop/train.csv": HEAD + ROWS,
        },
        "show shop",
    ),
    "doubt of too few": ({"a.csv": HEAD + b"1,x\n0,y\n"}, "doubt a.csv"),
    "doubt with one fold": ({"a.csv": HEAD + ROWS}, "doubt a.csv --folds 1"),
    "nothing to check": ({"a.csv": HEAD + ROWS}, "check --train a.csv --test b.csv"),
    "texts that are mostly broken": (
        {"a.csv": HEAD + ROWS, "b.csv": HEAD + b"1,x\n1,x,y\n0,x,y\n"},
        "check --train a.csv --test b.csv",
    ),
    "all was seen": ({"a.csv": HEAD + ROWS}, "check --train a.csv --test a.csv --unseen b.csv"),
    "unseen over the test file": ({"a.csv": HEAD + ROWS}, "check --train a.csv --test a.csv --unseen a.csv"),
    "unseen of two files": ({"a.csv": HEAD + ROWS}, "check --train a.csv --test a.csv --test a.csv --unseen b.csv"),
}


def list_options(command: str) -> set[str]:
    """Return the options of one of the commands on data."""
    group = get_command(build_app()).commands["data"]  # type: ignore[attr-defined]
    return {option for parameter in group.commands[command].params for option in parameter.opts}


def describe_error(folder: Path, files: dict[str, bytes], words: str) -> str:
    """Return what a command says of some files, as a line each for what, where, expected and next step."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    before = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    result = CliRunner().invoke(build_app(), ["data", *words.split()])
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == before, "something was left behind"
    error = result.exception
    assert isinstance(error, SentiFactoryError), result.output
    command = "prepare" if "data prepare" in error.next_step else words.split()[0]
    assert {*re.findall(r"--\w+", error.next_step)} <= list_options(command), error.next_step
    parts = [error.what, error.where, error.expected, error.next_step]
    return "\n".join(f"  {part}" for part in parts if part).replace(str(folder), "FOLDER")


@pytest.mark.slow
def test_every_fault_has_its_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    for number, (name, (files, words)) in enumerate(CASES.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setattr("sys.argv", ["sentifactory", "data", *words.split()])
        shown.append(f"{name}: sentifactory data {words}\n{describe_error(folder, files, words)}\n")
    compare_words("\n".join(shown), Path(__file__).parent / "expected" / "errors.txt")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "negative"),
    [
        (("满意", "不满意"), "不满意"),
        (("good one", "not good"), "not good"),
        (("👍", "👎"), "👎"),
        (("正例", "负例"), "负例"),
        (("非常满意", "不满意"), "不满意"),
        (("不错", "不好"), "不好"),
        (("1", "2"), "1"),
        (("95%", "10%"), "10%"),
        (("LABEL_1", "LABEL_0"), "LABEL_0"),
        (("好,真好", "差,真差"), "差,真差"),
        (("it's ok", 'so "bad"'), 'so "bad"'),
        (("-", "+"), "-"),
        (("\u200b满意", "不满意 "), "不满意 "),
        (("1", "不好"), "不好"),
        (("false", "true"), "false"),
        (("$HOME", "not a=b"), "not a=b"),
    ],
)
def test_the_options_that_are_named_can_be_pasted(
    words: tuple[str, str], negative: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Path("a.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("label", "text"), *((words[n % 2], f"第{n}家店") for n in range(40))])
    error = CliRunner().invoke(build_app(), ["data", "prepare", "a.csv"]).exception
    assert isinstance(error, DataError)
    words_of_hint = error.next_step.rpartition(" with ")[2].partition(" if ")[0]
    pasted = shlex.split(words_of_hint)
    result = CliRunner().invoke(build_app(), ["data", "prepare", "a.csv", *pasted])
    assert result.exit_code == 0, (error.next_step, result.output, result.exception)
    with Path("data/a/train.csv").open(encoding="utf-8", newline="") as stream:
        found = {(int(row["text"][1:-2]) % 2, row["label"]) for row in csv.DictReader(stream)}
    assert found == {(words.index(negative), "0"), (1 - words.index(negative), "1")}


@pytest.mark.parametrize("words", [("A", "B"), ("$HOME", "a=b"), ("非常满意", "满意"), ("不好", "太差")])
def test_unknown_words_are_not_guessed(
    words: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong guess that is pasted would swap the labels."""
    monkeypatch.chdir(tmp_path)
    with Path("a.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("label", "text"), *((words[n % 2], f"第{n}家店") for n in range(40))])
    with pytest.raises(DataError) as caught:
        read_source("a.csv", BINARY_SENTIMENT)
    asked = shlex.split(caught.value.next_step.partition(" as in ")[2].partition(", where")[0])
    assert asked == ["--label_map", f"{words[0]}=LABEL", "--label_map", f"{words[1]}=LABEL"]


def test_a_frequent_unknown_label_is_a_class_and_no_bad_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repo_root)
    words = ["好评", "差评"] * 100
    rows = [f"{word},第{row}家店" for row, word in enumerate([*words, *["中评"] * 7])]
    file = tmp_path / "rare.csv"
    file.write_text("label,text\n" + "\n".join(rows) + "\n", encoding="utf-8")
    assert len(read_source(file, BINARY_SENTIMENT).reviews) == 200
    said = capsys.readouterr().err
    assert "--task three_classes" in said
    assert "'中评' (7 times)" in said
    file.write_text("label,text\n" + "\n".join(rows[:-4]) + "\n", encoding="utf-8")
    read_source(file, BINARY_SENTIMENT)
    assert capsys.readouterr().err == "", "a few are typing errors"


def test_a_file_that_leaves_too_few_names_the_line_that_was_not_read(tmp_path: Path) -> None:
    file = tmp_path / "broken.jsonl"
    file.write_text('{"text": "好", "label": 1}\n{"text": "坏"\n', encoding="utf-8")
    error = CliRunner().invoke(build_app(), ["data", "prepare", str(file), "--output_dir", str(tmp_path)]).exception
    assert isinstance(error, DataError)
    assert error.code == "split-too-few"
    assert error.where == f"{file}, line 2"
    assert '{"text": "坏"' in error.what
    assert error.next_step


@pytest.mark.parametrize(
    ("words", "has_option"),
    [
        (("data", "prepare", "a.csv"), True),
        (("data", "show", "a.csv"), True),
        (("data", "check", "--train", "a.csv", "--test", "a.csv"), True),
        (("label", "a.csv", "b.csv", "--model", "a.csv"), True),
        (("eval", "ladder", "--csv_path", "a.csv", "--train_csv", "a.csv"), False),
        (("predict", "好", "--train_csv", "a.csv"), False),
    ],
    ids=lambda words: "_".join(words[:2]) if isinstance(words, tuple) else "",
)
def test_the_option_for_a_column_is_one_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], has_option: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("one,two\n1,好\n0,坏\n", encoding="utf-8")
    error = CliRunner().invoke(build_app(), words).exception
    assert isinstance(error, DataError), error
    assert error.code == "column-missing"
    assert ("sentifactory data prepare FILE --text_column NAME" in error.next_step) is not has_option
    assert "--text_column" in error.next_step
