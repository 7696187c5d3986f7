"""The scale of a label column is decided for each file, and ambiguous columns are refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from sentifactory.corpus.dataset.manifest import summarise_manifest
from sentifactory.corpus.prepare import prepare_reviews
from sentifactory.corpus.reading.read_result import ReadOptions
from sentifactory.corpus.reading.review_files import read_reviews, read_source
from sentifactory.errors import ConfigError, DataError
from sentifactory.records import Reason
from sentifactory.task.task import BINARY_SENTIMENT, Task
from sentifactory.task.task_file import load_task

N, P = 0, 1
MIDDLE, UNKNOWN = Reason.MIDDLE_STARS, Reason.UNKNOWN_LABEL


@pytest.fixture(scope="module")
def three_classes(repo_root: Path) -> Task:
    return load_task(str(repo_root / "examples" / "tasks" / "three_classes.yaml"))


def write(path: Path, name: str, cells: list[str]) -> Path:
    """Write a review for each cell, as the kind of file that the path states."""
    rows = [{name: cell, "text": f"第{number}条评论"} for number, cell in enumerate(cells)]
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        import pyarrow
        from pyarrow.parquet import write_table

        write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".xlsx":
        from openpyxl import Workbook

        book = Workbook()
        for row in (rows[0], *(row.values() for row in rows)):
            book.active.append([int(cell) if cell.isdecimal() else cell for cell in row])
        book.save(path)
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, [name, "text"])
            writer.writeheader()
            writer.writerows(rows)
    return path


def read(path: Path, threshold: float | None = None, task: Task = BINARY_SENTIMENT) -> tuple[list[Any], str]:
    """Return the label of each row, or why it has none, and what the file was read as."""
    result = read_source(path, task, ReadOptions(star_threshold=threshold))
    by_line = {one.source.line: one.label for one in result.reviews if one.source}
    by_line |= {one.source.line: one.reason for one in result.rejected}
    scale = result.inputs[0].scale
    assert scale is not None
    return [by_line[line] for line in sorted(by_line)], scale.said


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".parquet", ".xlsx"])
@pytest.mark.parametrize("name", ["评分", "rating", "score", "stars", "Star Rating"])
def test_a_star_column_of_only_ones_is_ambiguous(tmp_path: Path, name: str, kind: str) -> None:
    path = write(tmp_path / f"a{kind}", name, ["1"] * 5)
    options = ReadOptions(label_column=name)
    for ask in (read_source, read_reviews):  # whoever reads labels asks
        with pytest.raises(DataError, match="--star_threshold 3 if they are stars") as caught:
            ask(path, BINARY_SENTIMENT, options)
        assert caught.value.where.startswith(str(path))
    result = read_source(path, BINARY_SENTIMENT, ReadOptions(label_column=name, star_threshold=3))
    assert [review.label for review in result.reviews] == [N] * 5
    result = read_source(path, BINARY_SENTIMENT, ReadOptions(label_column=name, label_map={"1": "positive"}))
    assert [review.label for review in result.reviews] == [P] * 5


READ: dict[str, tuple[str, list[str], float | None, list[Any], str]] = {
    "0/1": ("label", ["0", "1"], None, [N, P], "labels 0/1"),
    "0/1 in a column of stars": ("rating", ["0", "1"], None, [N, P], "labels 0/1"),
    "0/1 with a threshold": ("label", ["0", "1"], 3, [N, P], "labels 0/1"),
    "0/1 with a threshold, called score": ("score", ["0", "1.0"], 3, [N, P], "labels 0/1"),
    "1 alone": ("label", ["1", "1"], None, [P, P], "labels 1"),
    "0 alone": ("rating", ["0", "0"], 3, [N, N], "labels 0"),
    "words with a threshold": ("评分", ["好评", "差评"], 3, [P, N], "labels 好评/差评"),
    "words and numbers": ("label", ["1", "正面", "负面"], 3, [P, P, N], "labels 1/正面/负面"),
    "stars": ("rating", ["1", "3", "5"], 3, [N, MIDDLE, P], "stars 1-5, above 3 positive"),
    "stars called label": ("label", ["1", "2", "5"], 3, [N, N, P], "stars 1-5, above 3 positive"),
    "1 and 5": ("label", ["1", "5"], 3, [N, P], "stars 1-5, above 3 positive"),
    "5 alone": ("评分", ["5", "5.0"], 3, [P, P], "stars 5, above 3 positive"),
    "few low ones": ("stars", ["1", "2"], 3, [N, N], "stars 1-2, above 3 positive"),
    "0 to 5": ("stars", ["0", "5", "3.5"], 3, [N, P, P], "stars 0-5, above 3 positive"),
    "halves": ("stars", ["0.5", "4.5", "1"], 3, [N, P, N], "stars 0.5-4.5, above 3 positive"),
    "spelt out": ("评分", ["5星", "一星", "★★", "好评"], 3, [P, N, N, P], "stars 1-5, above 3 positive"),
    "pictures": (
        "评分",
        ["⭐⭐", "两星", "⭐⭐⭐⭐", "5.0 out of 5 stars"],
        3,
        [N, N, P, P],
        "stars 2-5, above 3 positive",
    ),
    "1 to 10": ("score", ["1", "6", "10"], 5, [N, P, P], "stars 1-10, above 5 positive"),
    "0 to 100": ("score", ["20", "60", "95"], 60, [N, MIDDLE, P], "stars 20-95, above 60 positive"),
    "shares": ("score", ["0.93", "0.12", "1.0", "0"], 0.5, [P, N, P, N], "shares 0-1, above 0.5 positive"),
    "a typing error": (
        *("stars", ["1", "5"] * 15 + ["45"], 3),
        *([N, P] * 15 + [UNKNOWN], "stars 1-5, above 3 positive"),
    ),
    "stray stars among labels": (
        *("label", ["0", "1"] * 15 + ["5"], 3),
        *([N, P] * 15 + [UNKNOWN], "labels 0/1"),
    ),
}


@pytest.mark.parametrize("case", READ)
def test_the_scale_of_a_column(tmp_path: Path, case: str) -> None:
    name, cells, threshold, labels, said = READ[case]
    assert read(write(tmp_path / "a.csv", name, cells), threshold) == (labels, said)


ASKED: dict[str, tuple[str, list[str], float | None, str]] = {
    "stars": ("rating", ["1", "2", "5"], None, "--star_threshold 3,"),
    "5 alone": ("评分", ["5"], None, "--star_threshold 3,"),
    "0 to 5": ("score", ["0", "1", "4"], None, "--star_threshold 3,"),
    "1 to 10": ("score", ["1", "7", "10"], None, "--star_threshold 5,"),
    "0 to 100": ("score", ["0", "55", "98"], None, "--star_threshold 60,"),
    "few stars called label": ("label", ["1"] * 30 + ["5"], None, "--star_threshold 3,"),
    "1 alone with a threshold": ("label", ["1", "1"], 3, "call the column stars"),
    "labels 1 and 2": ("label", ["1", "2"], None, "--label_map 1=negative --label_map 2=positive "),
    "labels 1 and 2 with a threshold": ("label", ["1", "2"], 3, "write the labels as words"),
    "0 to 4": ("label", ["0", "1", "2", "3", "4"], None, "--star_threshold 2 "),
    "shares": ("score", ["0.93", "0.12"], None, "--star_threshold 0.5,"),
    "a threshold on shares": ("score", ["0.93", "0.12"], 3, "--star_threshold 0.5,"),
    "a share on stars": ("score", ["1", "5"], 0.5, "--star_threshold 3,"),
    "a threshold of ten on five stars": ("score", ["1", "5"], 6, "--star_threshold 3,"),
    "three classes with a threshold": ("label", ["0", "1", "2"], 3, "--task three_classes"),
}


@pytest.mark.parametrize("case", ASKED)
def test_ambiguous_columns_are_refused(tmp_path: Path, case: str) -> None:
    name, cells, threshold, hint = ASKED[case]
    path = write(tmp_path / "a.csv", name, cells)
    with pytest.raises((DataError, ConfigError)) as caught:
        read(path, threshold)
    assert hint in f"{caught.value.next_step},"
    assert caught.value.where.startswith(str(path))


def test_three_classes_and_stars(tmp_path: Path, three_classes: Task) -> None:
    labels = write(tmp_path / "a.csv", "label", ["0", "1", "2"])
    assert read(labels, 3, three_classes) == ([0, 1, 2], "labels 0/1/2")
    stars = write(tmp_path / "b.csv", "rating", ["1", "2", "3", "4"])
    assert read(stars, 3, three_classes)[0] == [0, 0, 1, 2]
    for name, threshold in (("rating", None), ("label", 3)):
        with pytest.raises(DataError, match="only 1, 2"):
            read(write(tmp_path / "c.csv", name, ["1", "2"]), threshold, three_classes)


def test_stars_are_labels_where_the_task_says_so(tmp_path: Path, repo_root: Path) -> None:
    task = load_task(str(repo_root / "examples" / "tasks" / "star_rating.yaml"))
    assert read(write(tmp_path / "a.csv", "rating", ["1", "1"]), None, task) == ([0, 0], "labels 1")


@pytest.mark.parametrize("n_others", [2, 100])  # a rare -1 changes what 0 means as well
@pytest.mark.parametrize(
    ("others", "hint"), [(["0", "1"], "--label_map 0=negative"), (["1"], "--label_map -1=negative")]
)
def test_minus_one_next_to_other_labels_is_ambiguous(
    tmp_path: Path, others: list[str], hint: str, n_others: int
) -> None:
    for minus in ("-1", "−1.0", "－１"):
        path = write(tmp_path / "a.csv", "情感倾向", [*others * n_others, minus])
        with pytest.raises(DataError, match=hint):
            read(path)
    path = write(tmp_path / "a.csv", "rating", ["1", "5"] * 15 + ["-1"])
    assert read(path, 3)[0] == [N, P] * 15 + [UNKNOWN]


def test_each_file_has_its_own_scale(tmp_path: Path) -> None:
    stars = write(tmp_path / "jd.csv", "评分", ["1", "5"] * 20)
    labels = write(tmp_path / "shop.csv", "label", ["0", "1"] * 20)
    labels.write_text(labels.read_text(encoding="utf-8").replace("条", "个"), encoding="utf-8")
    both, output_dir = [str(stars), str(labels)], str(tmp_path / "data")
    manifest = prepare_reviews(both, output_dir=output_dir, read=ReadOptions(star_threshold=3))
    assert [one["read_as"] for one in manifest["inputs"]] == ["stars 1-5, above 3 positive", "labels 0/1"]
    assert f"labels 0/1 ({labels})" in summarise_manifest(manifest, output_dir)
    with (tmp_path / "data" / manifest["name"] / "train.csv").open(encoding="utf-8", newline="") as stream:
        found = {
            (row["domain"], int(row["text"].strip("第条个评论")) % 2, row["label"]) for row in csv.DictReader(stream)
        }
    assert found == {("jd", 0, "0"), ("jd", 1, "1"), ("shop", 0, "0"), ("shop", 1, "1")}


@pytest.mark.parametrize(
    ("other", "options", "where"),
    [
        (("label", ["0", "1"]), ReadOptions(label_map={"1": "negative", "5": "positive"}), "--label_map"),
        (("评分", ["2", "10"]), ReadOptions(star_threshold=3), "--star_threshold"),
    ],
)
def test_an_ambiguous_option_is_refused(
    tmp_path: Path, other: tuple[str, list[str]], options: ReadOptions, where: str
) -> None:
    files = [str(write(tmp_path / "jd.csv", "评分", ["1", "5"] * 9)), str(write(tmp_path / "b.csv", *other))]
    with pytest.raises(ConfigError) as caught:
        prepare_reviews(files, output_dir=str(tmp_path / "data"), read=options)
    assert caught.value.where == where
    assert not (tmp_path / "data").exists()


def test_a_threshold_without_stars_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "label", ["0", "1"] * 9)
    with pytest.raises(ConfigError, match="No file holds stars"):
        prepare_reviews(str(path), output_dir=str(tmp_path / "data"), read=ReadOptions(star_threshold=3))


def test_answers_in_chats_are_not_stars(tmp_path: Path) -> None:
    rows = [{"messages": BINARY_SENTIMENT.render_messages(f"第{n}条", 1)} for n in range(3)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert read(path, 3) == ([P] * 3, "labels 1")
