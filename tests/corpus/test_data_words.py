"""The output of the data commands for one messy file, and every option reaches the code that uses it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from caught_call import catch_call
from expected_words import compare_words, read_words
from made_reviews import make_reviews, write_csv
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.corpus import commands, prepare
from sentifactory.corpus.cleaning.text_keys import encode_texts
from sentifactory.corpus.dataset import manifest as summary
from sentifactory.corpus.inspection import inspect_data, loaded_data
from sentifactory.corpus.inspection.data_profile import ProfileOptions
from sentifactory.corpus.leakage import leak_report
from sentifactory.corpus.prepare import PrepareOptions
from sentifactory.corpus.prepare_options import PipelineOptions
from sentifactory.corpus.reading.read_result import ReadOptions
from sentifactory.errors import ConfigError, DataError

LONG = "这家酒店的位置非常方便，出门就是地铁站，房间也打扫得很干净，早餐的种类不少"


def write_messy(path: Path) -> Path:
    """Write a file with rows for every reason of rejection, in two domains."""
    rows: list[tuple[str | int, ...]] = [
        (review.label or 0, review.text, ("书籍", "hotels")[row % 3 == 0])
        for row, review in enumerate(make_reviews(90, ("negative", "positive")))
    ]
    rows += [
        (1, LONG, "hotels"), (1, LONG + "！", "hotels"), (1, LONG.replace("不少", "很少"), "hotels"),
        (0, "一般", "书籍"), (1, "一般", "书籍"), (1, "", "书籍"), ("maybe", "不知道好不好", "书籍"),
        (0, "<b>太差</b> https://example.org/x", "书籍"), (1, "很好，" * 80, "hotels"), ("", "没有标签", "hotels"),
    ]  # fmt: skip
    return write_csv(path, rows, "label,text,domain")


def run(words: str) -> str:
    result = CliRunner().invoke(build_app(), words.split(), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return "".join(f"{line.rstrip()}\n" for line in result.stdout.splitlines())


def write_words(folder: Path) -> dict[str, str]:
    """Return what the commands write, by the name of the file in `expected`."""
    write_messy(folder / "shop.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        found = {"prepare.txt": run("data prepare shop.csv --seed 7 --balance up --val_size 10 --test_size 12")}
        data = folder / "data" / "shop"
        manifest = json.loads((data / "manifest.json").read_text(encoding="utf-8"))
        found["show.txt"] = run("data show shop --output_file show.html --top 3")
        page = (folder / "show.html").read_text(encoding="utf-8")
        found["show_page.txt"] = read_words(page)
        found["show_pictures.txt"] = (
            "\n".join(re.findall(r"<(?:rect|line|path|circle|polyline|text)[^>]*>", page)) + "\n"
        )
        found["doubt.txt"] = run("data doubt shop.csv --top 4") + (folder / "shop_reports" / "doubtful.csv").read_text(
            "utf-8-sig"
        )
    for name in ("rejected.csv", "near_repeats.csv"):
        found[name] = (data / name).read_text(encoding="utf-8-sig")
    for words in ("created_at", "versions", "packages", "machine"):
        manifest.pop(words, None)
    found["manifest.json"] = json.dumps(manifest, ensure_ascii=False, indent=1) + "\n"
    return found


def test_every_word_about_a_messy_file(tmp_path: Path) -> None:
    expected = Path(__file__).parent / "expected"
    written = write_words(tmp_path)
    assert {*written, "errors.txt"} == {file.name for file in expected.iterdir()}
    for name, text in written.items():
        compare_words(text, expected / name)


def test_every_option_of_prepare_reaches_the_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    assert catch_call(monkeypatch, prepare, "prepare_reviews", "data prepare a.csv").given == (
        ["a.csv"],
        PrepareOptions(),
    )
    words = (
        "data prepare a.csv b.csv --name n --output_dir o --task three_classes --formatting alpaca --seed 1 "
        "--val_size 0.2 --test_size 30 --eval_classes balanced --folds 4 --holdout_domain x --holdout_domain y "
        "--max_train 50 --balance up --on_conflict majority --on_leak keep --text_column t --label_column l "
        "--domain_column d --label_map 好评=positive --star_threshold 3.5 --encoding gb18030 --max_tokens 99 "
        "--tokenizer m --too_long cut --batch_size 8"
    )
    sources, options = catch_call(monkeypatch, prepare, "prepare_reviews", words).given
    assert sources == ["a.csv", "b.csv"]
    assert options == PrepareOptions(
        name="n",
        output_dir="o",
        task_name="three_classes",
        formatting="alpaca",
        read=ReadOptions("t", "l", "d", options.read.label_map, 3.5, "gb18030"),
        pipeline=PipelineOptions(
            seed=1,
            val_size=0.2,
            test_size=30,
            eval_classes="balanced",
            max_train=50,
            balance="up",
            folds=4,
            holdout_domains=("x", "y"),
            on_leak="keep",
            on_conflict="majority",
            max_tokens=99,
            tokenizer="m",
            too_long="cut",
            batch_size=8,
        ),
    )
    assert dict(options.read.label_map) == {"好评": "positive"}


def test_every_option_of_the_conversion_reaches_the_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def keep(*words: Any) -> dict[str, Any]:
        given.extend(words)
        return {"name": "评论"}

    monkeypatch.setattr(prepare, "prepare_reviews", keep)
    commands.convert_csv("c.csv", "n", "o", "three_classes", "alpaca", 1, 0.2, 30, "balanced", 50, "up", as_json=True)
    pipeline = PipelineOptions(seed=1, val_size=0.2, test_size=30, eval_classes="balanced", max_train=50, balance="up")
    assert given == [
        ["c.csv"],
        PrepareOptions(name="n", output_dir="o", task_name="three_classes", formatting="alpaca", pipeline=pipeline),
    ]


def test_the_options_of_check_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "data check --train a.csv --train b.csv --test c.csv --test d.csv --text_column t --encoding gb18030"
    train, test, task, options = catch_call(monkeypatch, leak_report, "check_leaks_in_files", words).given
    assert (train, test, task.name) == (["a.csv", "b.csv"], ["c.csv", "d.csv"], "binary_sentiment")
    assert options == ReadOptions(text_column="t", encoding="gb18030")


@pytest.mark.parametrize("as_json", [False, True])
def test_what_the_check_prints_and_its_exit_code(as_json: bool, tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", [(1, LONG), (0, "一般"), (0, "很差")])
    test = write_csv(tmp_path / "test.csv", [(1, LONG + "！"), (0, "一般"), (1, "别的")])
    words = ["data", "check", "--train", str(train), "--test", str(test), "--max_pairs", "1"]
    result = CliRunner().invoke(build_app(), [*words, "--json"] if as_json else words)
    assert result.exit_code == 3
    if as_json:
        found = json.loads(result.stdout)
        assert found["leaked_test_reviews"] == {"exact": 2, "near": 0}
        assert (found["n_pairs"], len(found["pairs"])) == (2, 1)
        assert found["pairs"][0] == {
            "kind": "exact",
            "similarity": 1.0,
            "train": {"file": str(train), "line": 2, "text": LONG},
            "test": {"file": str(test), "line": 2, "text": LONG + "！"},
        }
        assert LONG in result.stdout, "Chinese stays readable"
    else:
        lines = result.stdout.splitlines()
        assert lines[0] == "2 of the 3 test reviews are among the 3 training reviews: 2 exact, 0 near."
        assert lines[1].startswith(f"  exact 1.00: {train}, line 2 = {test}, line 2: {LONG}")
        assert lines[2] == "  ... and 1 more pairs"
    result = CliRunner().invoke(build_app(), [*words, "--unseen", str(tmp_path / "unseen.csv")])
    assert result.exit_code == 0
    assert (tmp_path / "unseen.csv").read_text(encoding="utf-8").splitlines() == ["label,text", '1,"别的"']


def test_kept_leaks_are_reported_first() -> None:
    manifest = {
        "name": "n",
        "task": {"labels": ["negative", "positive"]},
        "inputs": [{"file": "a.csv", "read_as": "labels 0/1"}, {"file": "b", "read_as": None}],
        "rows": {"in": 9, "kept": 7, "rejected": 2, "rejected_by_reason": {"repeat": 2, "blank": 0}},
        "parts": {"train": {"labels": {"negative": 2, "positive": 3}, "rows": 5, "copies": 1}},
        "near_repeats": {"rows": 2, "groups": 1},
        "leak_check": {"exact": 1, "near": 0},
        "outputs": {"train.jsonl": {}},
    }
    assert summary.summarise_manifest(manifest, "data").splitlines() == [
        "LEAKS KEPT AS ASKED: 1 exact and 0 near duplicates between the official splits",
        "9 rows read = 7 kept + 2 left out (repeat 2)",
        "Read as labels 0/1 (a.csv)",
        "            negative    positive         all",
        "train              2           3           5  (1 of them copies)",
        "Near duplicates: 2 rows in 1 groups, each within one part; leaks between the parts: 1 exact, 0 near",
        "Written to data/n: train.jsonl, manifest.json",
        "Registered in data/dataset_info.json: n_train",
    ]
    manifest["leak_check"] = {"exact": 0, "near": 1}
    assert "0 exact and 1 near" in summary.summarise_manifest(manifest, "data").splitlines()[0]
    manifest["leak_check"] = {"exact": 0, "near": 0}
    manifest["rows"]["rejected_by_reason"] = {"repeat": 0}  # type: ignore[index]
    assert summary.summarise_manifest(manifest, "data").splitlines()[0] == "9 rows read = 7 kept + 2 left out (none)"


def test_the_options_of_doubt_and_show_reach_them(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: dict[str, Any] = {}

    def load(what: str, **options: Any) -> str:
        looked.update(options, what=what)
        return "the data"

    monkeypatch.setattr(loaded_data, "load_inspected", load)
    words = "w --dataset_dir d --task t --text_column x --label_column y --seed 3 --output_file o --top 4"
    data, place, options = catch_call(
        monkeypatch, inspect_data, "write_data_page", f"data show {words} --domain_column z --tokenizer m --skip_doubt"
    ).given
    assert (data, place) == ("the data", "o")
    assert options == ProfileOptions(seed=3, tokenizer="m", n_doubtful=4, has_doubt=False)
    columns = ReadOptions(text_column="x", label_column="y", domain_column="z")
    assert looked == {"what": "w", "dataset_dir": "d", "task_name": "t", "options": columns}

    caught = catch_call(monkeypatch, inspect_data, "list_doubtful", f"data doubt {words} --folds 6")
    assert (caught.given, caught.named) == (("the data", "o"), {"n_folds": 6, "seed": 3, "top": 4})
    columns = ReadOptions(text_column="x", label_column="y")
    assert looked == {"what": "w", "dataset_dir": "d", "task_name": "t", "options": columns}


def test_a_data_set_that_was_changed_by_hand_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_messy(tmp_path / "shop.csv")
    run("data prepare shop.csv")
    for number, name in enumerate(("val.csv", "test.csv")):
        part = tmp_path / "data" / "shop" / name
        part.write_text(part.read_text(encoding="utf-8") + '1,"真的很好","书籍"\n', encoding="utf-8")
        shown = " ".join(run("data show shop --skip_doubt").split())
        names = ("val.csv differs", "val.csv, test.csv differ")[number]
        assert f"{names} from the manifest: edited, or left over from another run." in shown, shown
        assert f"The files hold {101 + number} rows, but the manifest states 100." in shown, shown


def test_texts_in_two_parts_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_messy(tmp_path / "shop.csv")
    run("data prepare shop.csv")
    train, test = ((tmp_path / "data" / "shop" / f"{name}.csv") for name in ("train", "test"))
    for number, words in enumerate(("1 text of the test part is", "2 texts of the test part are"), start=1):
        repeated = train.read_text(encoding="utf-8").splitlines()[number]
        test.write_text(f"{test.read_text(encoding='utf-8')}{repeated}\n", encoding="utf-8")
        shown = " ".join(run("data show shop --skip_doubt").split())
        assert f"{words} also in the training part: metrics on it would be too optimistic." in shown, shown


def test_a_package_that_a_table_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"x")
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    error = CliRunner().invoke(build_app(), ["data", "prepare", str(tmp_path / "a.parquet")]).exception
    assert isinstance(error, ConfigError)
    assert error.what == "The package pyarrow is needed to read this file, and it is not installed"
    assert error.where == str(tmp_path / "a.parquet")
    assert error.next_step == "pip install pyarrow, or save the reviews as CSV in UTF-8"


def test_lone_surrogates_are_encoded_like_other_characters() -> None:
    points, lengths = encode_texts(["好\ud83d", "", "a"])
    assert points.tolist() == [ord("好"), 0xD83D, ord("a")]
    assert lengths.tolist() == [2, 0, 1]


def test_a_workbook_with_two_sheets_of_reviews(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for sheet in (book.active, book.create_sheet("Other")):
        sheet.append(["label", "text"])
        sheet.append([1, "很好"])
    book.save(tmp_path / "a.xlsx")
    error = CliRunner().invoke(build_app(), ["data", "prepare", str(tmp_path / "a.xlsx")]).exception
    assert isinstance(error, DataError)
    assert error.what == "The workbook has 2 sheets with data: 'Sheet', 'Other'"
    assert (error.where, error.expected) == (str(tmp_path / "a.xlsx"), "one sheet with a text and a label column")
    assert error.next_step == "save that sheet as CSV in UTF-8, or in a workbook of its own"
