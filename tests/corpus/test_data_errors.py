"""What is said of each way in which data can be wrong, word for word: `expected/errors.txt`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from expected_words import compare_words
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.errors import SentiFactoryError

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


def tell(folder: Path, files: dict[str, bytes], words: str) -> str:
    """Return what a command says of some files, as a line each for what, where, expected and next step."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    before = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    result = CliRunner().invoke(build_app(), ["data", *words.split()])
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == before, "something was left behind"
    error = result.exception
    assert isinstance(error, SentiFactoryError), result.output
    parts = [error.what, error.where, error.expected, error.next_step]
    return "\n".join(f"  {part}" for part in parts if part).replace(str(folder), "FOLDER")


def test_every_fault_has_its_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    for number, (name, (files, words)) in enumerate(CASES.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        told.append(f"{name}: sentifactory data {words}\n{tell(folder, files, words)}\n")
    compare_words("\n".join(told), Path(__file__).parent / "expected" / "errors.txt")
