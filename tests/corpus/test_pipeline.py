"""The pipeline on files: groups stay in one part in every split, the outputs are proven, official splits are kept."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sentifactory.clean_text import normalise_text
from sentifactory.corpus.cleaning import duplicate_groups
from sentifactory.corpus.cleaning.near_duplicates import find_near_pairs
from sentifactory.corpus.cleaning.text_keys import make_keys
from sentifactory.corpus.leakage.leak_report import check_leaks_in_files
from sentifactory.corpus.leakage.overlap import find_overlaps
from sentifactory.corpus.prepare import prepare_reviews
from sentifactory.errors import ConfigError, LeakError
from sentifactory.task.task import BINARY_SENTIMENT
from tools.benches.synthetic_reviews import generate_reviews, load_stock, write_generated

N = 1500


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of generated reviews in three domains, two thirds of them positive."""
    path = tmp_path_factory.mktemp("source") / "reviews.csv"
    chosen = random.Random(7)
    stock = chosen.sample(load_stock(), 3000)
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["label", "text", "domain"])
        for one in generate_reviews(N, 3, stock):
            if one.label or chosen.random() < 0.6:
                rows.writerow([one.label, one.text, chosen.choice(["书", "酒店", "电脑"])])
    return path


def read_texts(folder: Path, part: str) -> list[str]:
    with (folder / f"{part}.csv").open(encoding="utf-8", newline="") as stream:
        return [row["text"] for row in csv.DictReader(stream)]


def check_apart(folder: Path, parts: list[str]) -> None:
    """Assert that no two parts share a text, exactly or nearly, by the listed groups and by a search of the files."""
    with (folder / "near_repeats.csv").open(encoding="utf-8", newline="") as stream:
        groups: dict[str, set[str]] = {}
        for row in csv.DictReader(stream):
            groups.setdefault(row["group"], set()).add(row["part"])
    assert groups
    assert all(len(found - {""}) <= 1 for found in groups.values())
    assert find_overlaps({part: read_texts(folder, part) for part in parts}) == []
    keys = [{*make_keys(read_texts(folder, part))} for part in parts]
    assert len(set.union(*keys)) == sum(map(len, keys))


def check_accounts(manifest: dict[str, Any], folder: Path) -> None:
    rows = manifest["rows"]
    assert rows["in"] == rows["kept"] + rows["rejected"] == sum(item["rows"] for item in manifest["inputs"])
    with (folder / "rejected.csv").open(encoding="utf-8", newline="") as stream:
        reasons = Counter(row["reason"] for row in csv.DictReader(stream))
    assert reasons == {reason: n for reason, n in rows["rejected_by_reason"].items() if n}
    for part, counts in manifest["parts"].items():
        assert sum(counts["labels"].values()) == counts["rows"]
        if counts["rows"]:
            assert len(read_texts(folder, part)) == counts["rows"]
            assert sum(domain["rows"] for domain in counts["domains"].values()) == counts["rows"]
    assert manifest["leak_check"]["exact"] == manifest["leak_check"]["near"] == 0


@pytest.mark.parametrize("balance", ["down", "up", "none", "weights"])
def test_one_split(source: Path, tmp_path: Path, balance: str) -> None:
    manifest = prepare_reviews(str(source), output_dir=tmp_path, balance=balance, val_size=0.15, test_size=200)
    folder = tmp_path / "reviews"
    check_accounts(manifest, folder)
    check_apart(folder, ["train", "val", "test"])
    train = manifest["parts"]["train"]
    negative, positive = train["labels"].values()
    assert (negative == positive) is (balance in ("down", "up"))
    assert ("copies" in train) is (balance == "up")
    for part in ("val", "test"):
        assert "copies" not in manifest["parts"][part]
        assert max(Counter(read_texts(folder, part)).values()) == 1
    if balance == "up":
        texts = read_texts(folder, "train")
        assert len(texts) - len(set(texts)) == train["copies"] > 0
    if balance == "weights":
        weights = manifest["class_weights"]["train"]
        assert weights["negative"] * negative == pytest.approx(weights["positive"] * positive, rel=1e-4)
    else:
        assert "class_weights" not in manifest


def test_folds(source: Path, tmp_path: Path) -> None:
    manifest = prepare_reviews(str(source), output_dir=tmp_path, folds=4, test_size=0.2, balance="up")
    folder = tmp_path / "reviews"
    check_accounts(manifest, folder)
    vals = [f"fold_{number}/val" for number in range(4)]
    check_apart(folder, [*vals, "test"])
    assert ["fold_0/val", "fold_1/val"] in manifest["leak_check"]["compared"]
    for number in range(4):
        check_apart(folder, [f"fold_{number}/train", f"fold_{number}/val", "test"])
        assert "copies" in manifest["parts"][f"fold_{number}/train"]
        assert "copies" not in manifest["parts"][f"fold_{number}/val"]
    names = json.loads((tmp_path / "dataset_info.json").read_text(encoding="utf-8"))
    assert set(names) == {f"reviews_fold_{number}_{part}" for number in range(4) for part in ("train", "val")}
    assert (tmp_path / names["reviews_fold_3_train"]["file_name"]).is_file()


def test_a_held_out_domain(source: Path, tmp_path: Path) -> None:
    manifest = prepare_reviews(str(source), output_dir=tmp_path, holdout_domains=("酒店",), balance="none")
    folder = tmp_path / "reviews"
    check_accounts(manifest, folder)
    check_apart(folder, ["train", "val", "test"])
    assert list(manifest["parts"]["test"]["domains"]) == ["酒店"]
    assert list(manifest["parts"]["train"]["domains"]) == ["书", "电脑"]
    assert manifest["rows"]["rejected_by_reason"]["as a held-out review"] > 0
    assert "which is held out" in (folder / "rejected.csv").read_text(encoding="utf-8")


@pytest.mark.slow
def test_several_files_are_domains(source: Path, tmp_path: Path) -> None:
    for name, seed in (("books", 11), ("hotels", 12)):
        write_generated(tmp_path / f"{name}.csv", 300, seed)
    files = [str(tmp_path / "books.csv"), str(tmp_path / "hotels.csv")]
    manifest = prepare_reviews(files, output_dir=tmp_path, holdout_domains=("hotels",))
    assert manifest["name"] == "books_hotels"
    assert [item["rows"] for item in manifest["inputs"]] == [300, 300]
    assert list(manifest["parts"]["test"]["domains"]) == ["hotels"]
    assert set(manifest["parts"]["train"]["domains"]) == {"books"}
    check_accounts(manifest, tmp_path / "books_hotels")


@pytest.mark.slow
def test_files_with_the_same_name_are_different_domains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("jd/train.csv", "tb/train.csv", "tb/a.v2.csv", "tb/a.v2.jsonl")):
        Path(name).parent.mkdir(exist_ok=True)
        write_generated(Path(name), 300, number + 20)
    with Path("tb/a.v2.jsonl").open(encoding="utf-8") as stream:
        rows = [json.dumps({"text": row["text"], "label": row["label"]}) for row in csv.DictReader(stream)]
    Path("tb/a.v2.jsonl").write_text("\n".join(rows), encoding="utf-8")
    manifest = prepare_reviews(["jd/train.csv", "tb/train.csv"], output_dir="data", holdout_domains=("jd/train",))
    assert manifest["name"] == "jd_train_tb_train"
    assert list(manifest["parts"]["test"]["domains"]) == ["jd/train"]
    assert list(manifest["parts"]["train"]["domains"]) == ["tb/train"]
    monkeypatch.chdir("tb")
    files = ["train.csv", "../jd/train.csv", "a.v2.csv", "a.v2.jsonl"]
    parts = prepare_reviews(files, output_dir="data")["parts"]
    assert list(parts["train"]["domains"]) == ["a.v2.csv", "a.v2.jsonl", "jd/train", "tb/train"]
    for twice in ("train.csv", "../tb/train.csv"):
        with pytest.raises(ConfigError, match="given twice"):
            prepare_reviews(["train.csv", twice], output_dir="data")


def test_pairs_that_the_search_missed_are_found_in_the_outputs(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = find_near_pairs([])
    monkeypatch.setattr(duplicate_groups, "find_near_pairs", lambda keys: nothing)
    manifest = prepare_reviews(str(source), output_dir=tmp_path, val_size=0.2, test_size=0.2)
    assert manifest["near_repeats"]["groups"] > 0
    check_accounts(manifest, tmp_path / "reviews")
    texts = {part: read_texts(tmp_path / "reviews", part) for part in ("train", "val", "test")}
    assert find_overlaps(texts) == []


def test_two_runs_give_the_same_bytes(source: Path, tmp_path: Path) -> None:
    trees = []
    for run in ("one", "two"):
        prepare_reviews(str(source), output_dir=tmp_path / run, folds=3, balance="weights")
        paths = sorted(path for path in (tmp_path / run).rglob("*") if path.is_file())
        trees.append({str(path.relative_to(tmp_path / run)): path.read_bytes() for path in paths})
    assert trees[0] == trees[1]
    assert len(trees[0]) == 1 + 3 * 4 + 1 + 3


@pytest.mark.slow
def test_the_number_of_threads_and_the_hash_seed_do_not_matter(source: Path, tmp_path: Path) -> None:
    trees = []
    for threads, hash_seed in (("1", "0"), ("4", "1")):
        env = {**os.environ, "RAYON_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "PYTHONHASHSEED": hash_seed}
        folder = tmp_path / threads
        command = [
            sys.executable,
            "-m",
            "sentifactory.cli",
            "data",
            "prepare",
            str(source),
            "--output_dir",
            str(folder),
        ]
        subprocess.run(command, env=env, check=True, capture_output=True)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        trees.append({str(path.relative_to(folder)): path.read_bytes() for path in paths})
    assert trees[0] == trees[1]


def test_an_output_passes_the_check_and_a_leak_does_not(source: Path, tmp_path: Path) -> None:
    prepare_reviews(str(source), output_dir=tmp_path, max_train=200)
    folder = tmp_path / "reviews"
    assert check_leaks_in_files([folder / "train.jsonl"], [folder / "test.csv", folder / "val.jsonl"]).is_clean
    with (folder / "train.jsonl").open("a", encoding="utf-8") as stream:
        messages = BINARY_SENTIMENT.render_messages(read_texts(folder, "test")[5], 1)
        stream.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    report = check_leaks_in_files([folder / "train.jsonl"], [folder / "test.csv"])
    assert [(pair.kind, pair.test.text) for pair in report.pairs][:1] == [("exact", read_texts(folder, "test")[5])]


LONG = "酒店的位置很好，就在地铁站旁边，早餐也不错，服务员态度很热情"


def write_official(folder: Path, *, with_leaks: bool) -> Path:
    """Write official splits: 60, 20 and 20 rows; the test part repeats itself once and is not balanced."""
    folder.mkdir()
    stock = [review for review in load_stock()[::50] if len(review.text) > 20]
    rows = [(number % 2, review.text) for number, review in enumerate(stock)]
    parts = {"train": rows[:60], "dev": rows[60:80], "test": [*rows[80:99], rows[80]]}
    parts["train"] += [rows[0], (1 - rows[1][0], rows[1][1]), (1, "")]
    if with_leaks:
        parts["train"] += [(1, LONG), (0, rows[85][1] + "！")]
        parts["test"] += [(1, LONG.replace("地铁", "火车"))]
    for part, texts in parts.items():
        with (folder / f"{part}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["label", "text"])
            writer.writerows(texts)
    return folder


def test_official_splits_are_kept(tmp_path: Path) -> None:
    source = write_official(tmp_path / "official", with_leaks=False)
    manifest = prepare_reviews(str(source), output_dir=tmp_path / "data")
    folder = tmp_path / "data" / "official"
    assert manifest["has_official_splits"] is True
    for part, file in (("val", "dev"), ("test", "test")):
        assert read_texts(folder, part) == [normal.strip() for normal in read_texts(source, file)]
    by_reason = manifest["rows"]["rejected_by_reason"]
    assert (by_reason["repeat"], by_reason["more than one label"], by_reason["empty"]) == (1, 2, 1)
    assert set(read_texts(folder, "train")) <= set(map(str.strip, read_texts(source, "train")))
    assert manifest["parts"]["train"]["rows"] == 59
    assert manifest["rows"]["in"] == manifest["rows"]["kept"] + manifest["rows"]["rejected"]


def test_leaks_between_official_splits(tmp_path: Path) -> None:
    source = write_official(tmp_path / "official", with_leaks=True)
    with pytest.raises(LeakError) as caught:
        prepare_reviews(str(source), output_dir=tmp_path / "data")
    assert caught.value.exit_code == 3
    for word in ("2 of test in train", "near, 0.9", "--on_leak drop", "train.csv, line 65"):
        assert word in caught.value.describe()
    assert not (tmp_path / "data").exists()

    dropped = prepare_reviews(str(source), output_dir=tmp_path / "data", name="dropped", on_leak="drop", balance="up")
    assert dropped["rows"]["rejected_by_reason"]["as a held-out review"] == 2
    assert dropped["leak_check"]["exact"] == dropped["leak_check"]["near"] == 0
    assert dropped["parts"]["test"]["rows"] == 21
    check_leaks_in_files([tmp_path / "data/dropped/train.csv"], [tmp_path / "data/dropped/test.csv"])
    keys = set(make_keys(read_texts(tmp_path / "data" / "dropped", "train")))
    assert normalise_text(LONG) not in keys

    kept = prepare_reviews(str(source), output_dir=tmp_path / "data", name="kept", on_leak="keep")
    assert (kept["leak_check"]["exact"], kept["leak_check"]["near"]) == (1, 1)
    assert kept["rows"]["rejected_by_reason"]["as a held-out review"] == 0


@pytest.mark.slow
def test_kept_leaks_are_in_the_first_line(tmp_path: Path) -> None:
    write_official(tmp_path / "official", with_leaks=True)
    command = [sys.executable, "-m", "sentifactory.cli", "data", "prepare", "official"]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (3, "")
    kept = subprocess.run([*command, "--on_leak", "keep"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert kept.returncode == 0
    assert kept.stdout.startswith("LEAKS KEPT AS ASKED: 1 exact and 1 near")


@pytest.mark.parametrize("choice", [{"folds": 3}, {"test_size": 0.1}, {"val_size": 5}, {"holdout_domains": ("x",)}])
def test_official_splits_are_not_moved(tmp_path: Path, choice: dict[str, Any]) -> None:
    source = write_official(tmp_path / "official", with_leaks=False)
    with pytest.raises(ConfigError, match="official splits"):
        prepare_reviews(str(source), output_dir=tmp_path / "data", **choice)


@pytest.mark.parametrize(
    ("choices", "where"),
    [
        ({"balance": "half"}, "--balance"),
        ({"on_conflict": "first"}, "--on_conflict"),
        ({"on_leak": "ignore"}, "--on_leak"),
        ({"too_long": "split"}, "--too_long"),
        ({"folds": 1}, "--folds"),
        ({"folds": 3, "val_size": 0.1}, "--folds"),
        ({"max_tokens": 100}, "--max_tokens"),
        ({"formatting": "chatml"}, "--formatting"),
    ],
)
def test_wrong_choices_are_named(source: Path, tmp_path: Path, choices: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare_reviews(str(source), output_dir=tmp_path / "data", **choices)
    assert caught.value.where == where
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_kill_leaves_nothing_half_written_and_the_same_command_completes(tmp_path: Path) -> None:
    write_generated(tmp_path / "reviews.csv", 3000, 5)
    command = [sys.executable, "-m", "sentifactory.cli", "data", "prepare", "reviews.csv"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    data = tmp_path / "data"
    while process.poll() is None and not (data.exists() and any(data.iterdir())):
        time.sleep(0.005)  # until the temporary folder is there: the run is in the middle of its writing
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (data / "reviews").exists()
    assert not (data / "dataset_info.json").exists()
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert json.loads((data / "reviews" / "manifest.json").read_text(encoding="utf-8"))["rows"]["in"] == 3000
    assert sorted(path.name for path in data.iterdir()) == ["dataset_info.json", "reviews"]
