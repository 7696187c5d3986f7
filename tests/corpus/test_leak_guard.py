"""Which files are held out from a training file, which a manifest proves clean, and which are compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_reviews import make_reviews, write_reviews

from sentifactory.corpus.leakage import leak_guard
from sentifactory.corpus.leakage.leak_guard import (
    CLEAN,
    LEAKS,
    TrainFile,
    find_held_out,
    find_leaks,
    find_leaks_by_file,
    find_proof,
    find_readable,
)
from sentifactory.corpus.prepare import prepare_reviews
from sentifactory.errors import DataError, LeakError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A prepared data set."""
    write_reviews(tmp_path / "mine.csv", make_reviews(160, ("negative", "positive")))
    prepare_reviews(str(tmp_path / "mine.csv"), output_dir=tmp_path / "data")
    return tmp_path / "data" / "mine"


@pytest.fixture
def folds(tmp_path: Path) -> Path:
    """A data set in three folds."""
    write_reviews(tmp_path / "many.csv", make_reviews(160, ("negative", "positive"), seed=1))
    prepare_reviews(str(tmp_path / "many.csv"), output_dir=tmp_path / "data", folds=3)
    return tmp_path / "data" / "many"


def test_the_manifest_names_what_is_held_out(data: Path, folds: Path, tmp_path: Path) -> None:
    assert find_held_out([data / "train.jsonl"]) == [data / "val.csv", data / "test.csv"]
    assert find_held_out([data / "train.jsonl", data / "val.jsonl"]) == [data / "test.csv"]
    assert find_held_out([folds / "fold_1" / "train.jsonl"]) == [folds / "fold_1" / "val.csv", folds / "test.csv"]
    assert find_held_out([tmp_path / "mine.csv"]) == []


def test_a_manifest_proves_files_with_its_hashes(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("nothing should be compared")

    monkeypatch.setattr(leak_guard, "check_seen", fail)
    finding = find_leaks([TrainFile(data / "train.jsonl")], [data / "val.csv", data / "test.csv"])
    assert finding.status == CLEAN
    assert finding.to_json()["proven_by"] == [str(data / "manifest.json")]
    assert "proves for exactly these files" in finding.summarise()


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["near_repeats"]["rule"].update(min_chars=99),
        lambda manifest: manifest["versions"].update(sentifactory="0.0.0"),
        lambda manifest: manifest["leak_check"].update(near=1),
        lambda manifest: manifest["leak_check"].update(compared=[["val", "test"]]),
        lambda manifest: manifest["outputs"].pop("train.jsonl"),
        lambda manifest: manifest["leak_check"].clear(),
    ],
)
def test_a_manifest_without_proof_is_ignored(data: Path, change: object) -> None:
    assert find_proof(data / "train.jsonl", data / "test.csv") == data / "manifest.json"
    manifest = json.loads((data / "manifest.json").read_text(encoding="utf-8"))
    change(manifest)  # type: ignore[operator]
    (data / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert find_proof(data / "train.jsonl", data / "test.csv") is None


def test_changed_files_are_compared_and_refused(data: Path) -> None:
    rows = (data / "test.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    with (data / "train.csv").open("a", encoding="utf-8") as stream:
        stream.write(rows[1])
    assert find_proof(data / "train.csv", data / "test.csv") is None
    finding = find_leaks([TrainFile(data / "train.csv")], [data / "test.csv", data / "val.csv"])
    assert (finding.status, finding.n_leaked) == (LEAKS, 1)
    with pytest.raises(
        LeakError, match=r"test\.csv, line 2 duplicates .*train\.csv, line \d+ \(exact, 1\.00\).*Next: x"
    ):
        finding.refuse(next_step="x")
    n_before = sum(1 for _ in (data / "train.csv").open(encoding="utf-8")) - 2
    assert find_leaks([TrainFile(data / "train.csv", n_before)], [data / "test.csv"]).status == CLEAN


def test_folds_are_proven_by_their_val_parts(folds: Path) -> None:
    train = folds / "fold_0" / "train.jsonl"
    assert find_proof(train, folds / "fold_0" / "val.csv") == folds / "manifest.json"
    assert find_proof(train, folds / "test.csv") == folds / "manifest.json"
    assert find_proof(train, folds / "fold_1" / "val.csv") is None
    assert find_leaks([TrainFile(train)], [folds / "fold_1" / "val.csv"]).status == LEAKS


def test_texts_are_read_whatever_their_labels(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("rating,text\n5,非常好吃的一家店\n1,再也不会来了\n", encoding="utf-8")
    (tmp_path / "test.csv").write_text("text\n非常好吃的一家店！\n没有人说过的话\n", encoding="utf-8")
    finding = find_leaks([TrainFile(tmp_path / "train.csv")], [tmp_path / "test.csv"])
    assert (finding.status, finding.n_leaked) == (LEAKS, 1)
    (tmp_path / "empty.csv").write_text("text\n", encoding="utf-8")
    with pytest.raises(DataError, match="no rows"):
        find_leaks([TrainFile(tmp_path / "train.csv")], [tmp_path / "empty.csv"])
    (tmp_path / "broken.jsonl").write_text('{"text": "好"}\n{"text"\n[\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"broken\.jsonl, line 2"):
        find_leaks([TrainFile(tmp_path / "train.csv")], [tmp_path / "broken.jsonl"])


def test_the_same_reviews_in_two_training_files_are_reported_once(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text\n非常好吃的一家店\n再也不会来了\n再也不会来了\n", encoding="utf-8")
    (tmp_path / "more.jsonl").write_text('{"text": "再也不会来了！"}\n{"text": "菜很新鲜"}\n', encoding="utf-8")
    (tmp_path / "test.csv").write_text("text\n没有人说过的话\n", encoding="utf-8")
    train = [TrainFile(tmp_path / "train.csv"), TrainFile(tmp_path / "more.jsonl")]
    assert (
        "None of the 1 test reviews is among the 4 training" in find_leaks(train, [tmp_path / "test.csv"]).summarise()
    )
    (tmp_path / "test.csv").write_text("text\n菜很新鲜\n", encoding="utf-8")
    finding = find_leaks(train, [tmp_path / "test.csv"])
    assert finding.report is not None
    assert [str(pair.train.source) for pair in finding.report.pairs] == [f"{tmp_path / 'more.jsonl'}, line 2"]


def test_several_test_files_are_distinguished_and_training_is_read_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.csv").write_text("text\n非常好吃的一家店，下次再来\n再也不会来了\n", encoding="utf-8")
    (tmp_path / "one.csv").write_text("text\n没有人说过的话\n再也不会来了！\n", encoding="utf-8")
    (tmp_path / "two.csv").write_text("text\n非常好吃的一家店，下回再来\n再也不会来了\n", encoding="utf-8")
    (tmp_path / "three.csv").write_text("text\n另一句没有人说过的话\n", encoding="utf-8")
    files = [tmp_path / f"{name}.csv" for name in ("one", "two", "three")]
    opened: list[Path] = []
    read = leak_guard.read_seen

    def note(path: Path, *rest: Any, **more: Any) -> object:
        opened.append(path)
        return read(path, *rest, **more)

    monkeypatch.setattr(leak_guard, "read_seen", note)
    train = [TrainFile(tmp_path / "train.csv")]
    findings = find_leaks_by_file(train, files)
    assert sorted(opened) == sorted([tmp_path / "train.csv", *files])
    assert [finding.n_leaked for finding in findings] == [1, 2, 0]
    assert [finding.status for finding in findings] == [LEAKS, LEAKS, CLEAN]
    assert [finding.report.n_test for finding in findings if finding.report] == [2, 2, 1]
    for file, finding in zip(files, findings, strict=True):
        assert finding == find_leaks(train, [file])
    together = find_leaks(train, files)
    assert (together.n_leaked, together.test_files) == (3, tuple(map(str, files)))
    mixed = find_leaks_by_file([TrainFile(data / "train.jsonl")], [data / "test.csv", files[0]])
    assert [bool(finding.manifests) for finding in mixed] == [True, False]


def test_columns_of_any_name_are_compared(tmp_path: Path) -> None:
    rows = [
        {"question": f"第{at}题，“{text}”好吗", "gold": at % 2}
        for at, text in enumerate(("菜很新鲜，送得很快", "再也不会来了，真差"))
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "test.csv").write_text("text\n菜很新鲜，送得很快\n没有人说过的话\n", encoding="utf-8")
    finding = find_leaks([TrainFile(tmp_path / "train.jsonl")], [tmp_path / "test.csv"])
    assert (finding.status, finding.n_leaked) == (LEAKS, 1)
    with pytest.raises(DataError):  # of a file to test on one must know what the reviews are
        find_leaks([TrainFile(tmp_path / "test.csv")], [tmp_path / "train.jsonl"])


def test_readable_files_are_separated(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": 2}\n', encoding="utf-8")
    (tmp_path / "b.csv").write_text("text\n很好\n", encoding="utf-8")
    train = [TrainFile(tmp_path / name) for name in ("a.jsonl", "b.csv")]
    readable, problem = find_readable(train)
    assert readable == train[1:]
    assert "a.jsonl" in problem
    assert find_readable(train[1:]) == (train[1:], "")
