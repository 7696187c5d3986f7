"""`sentifactory label` writes, replaces and removes its own files alone, and follows no planted link."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.errors import ConfigError, EngineError
from sentifactory.serving.answer_format import AnswerFormatter
from sentifactory.serving.labelling import resumable_output
from sentifactory.serving.labelling.label_file import EngineRowPredictor, LabelOptions, label_file
from sentifactory.system.stop_signals import StoppedError
from sentifactory.task.task import BINARY_SENTIMENT
from tools.service_bench.scripted_engine import ScriptedEngine

TRAIN = "text,label\n很好,1\n好极了,1\n太差,0\n很差,0\n"


def run(source: Path, out: Path, **options: bool) -> dict:
    answerer = EngineRowPredictor(ScriptedEngine(BINARY_SENTIMENT), "in")
    return label_file(
        LabelOptions(source, out, **options), AnswerFormatter(BINARY_SENTIMENT, "s"), {"engine": "s"}, lambda: answerer
    )


def read_all(folder: Path) -> dict[str, bytes | str]:
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with an input, one row of which cannot be labelled."""
    (tmp_path / "in.csv").write_text("text,n\n很好,1\n ,2\n太差,3\n", encoding="utf-8")
    return tmp_path


def test_a_file_of_bad_rows_is_not_labelled_into_the_output_it_belongs_to(tmp_path: Path) -> None:
    source = tmp_path / "r.jsonl.bad.jsonl"
    source.write_text('{"line": 1, "reason": "x", "row": "很好"}\n', encoding="utf-8")
    (tmp_path / "train.csv").write_text(TRAIN, encoding="utf-8")
    before = read_all(tmp_path)
    for name in (source.name, "link.jsonl"):
        words = [str(tmp_path / name), str(tmp_path / "r.jsonl"), "--text_column", "row", "--engine", "tfidf"]
        if name == "link.jsonl":
            os.link(source, tmp_path / name)
            before = read_all(tmp_path)
        result = CliRunner().invoke(build_app(), ["label", *words, "--model", str(tmp_path / "train.csv")])
        assert isinstance(result.exception, ConfigError), result.output
        assert read_all(tmp_path) == before


@pytest.mark.parametrize("name", ["out.csv.bad.jsonl", "out.csv.journal.json"])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("content", ["mine", '{"mine": 1}', '{"settings": {}, "rows": 1}\n'])
def test_a_users_file_with_a_name_that_we_need_is_refused_and_stays(
    place: Path, name: str, overwrite: bool, content: str
) -> None:
    (place / name).write_text(content)
    before = read_all(place)
    with pytest.raises(ConfigError) as caught:
        run(place / "in.csv", place / "out.csv", overwrite=overwrite)
    assert caught.value.where == str(place / name)
    assert "--overwrite" not in caught.value.next_step
    assert read_all(place) == before


@pytest.mark.parametrize("name", [".out.csv.part", "out.csv.part", "out.csv.bad.jsonl.part", "out.csv.texts"])
def test_a_users_file_with_the_name_of_an_earlier_temporary_one_stays(place: Path, name: str) -> None:
    (place / name).write_text("mine")
    for overwrite in (False, True):
        run(place / "in.csv", place / "out.csv", overwrite=overwrite)
    assert (place / name).read_text() == "mine"


def test_bad_rows_of_an_earlier_run_are_replaced_where_that_was_asked_for(place: Path) -> None:
    run(place / "in.csv", place / "out.csv")
    bad = place / "out.csv.bad.jsonl"
    (place / "out.csv").unlink()
    before = read_all(place)
    with pytest.raises(ConfigError) as caught:
        run(place / "in.csv", place / "out.csv")
    assert "--overwrite" not in caught.value.next_step
    assert read_all(place) == before
    run(place / "in.csv", place / "out.csv", overwrite=True)
    assert json.loads(bad.read_text())["line"] == 3
    (place / "in.csv").write_text("text\n很好\n", encoding="utf-8")
    run(place / "in.csv", place / "out.csv", overwrite=True)
    assert sorted(read_all(place)) == ["in.csv", "out.csv"], "bad rows of the output that was replaced are gone"


@pytest.mark.parametrize("name", ["out.csv", "out.csv.bad.jsonl", "out.csv.journal.json"])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("is_dangling", [False, True])
def test_a_planted_link_is_not_followed(place: Path, name: str, overwrite: bool, is_dangling: bool) -> None:
    target = place / "target"
    if not is_dangling:
        target.write_text("mine")
    (place / name).symlink_to(target)
    if name == "out.csv" and overwrite:
        run(place / "in.csv", place / name, overwrite=True)
        assert not (place / name).is_symlink()
    else:
        before = read_all(place)
        with pytest.raises(ConfigError):
            run(place / "in.csv", place / "out.csv", overwrite=overwrite)
        assert read_all(place) == before
    assert target.exists() != is_dangling
    assert is_dangling or target.read_text() == "mine"


def kill_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, source: Path, out: Path) -> None:
    """Label until a function of the spool would be called, and leave what a killed process leaves."""
    with monkeypatch.context() as killed:
        killed.setattr(owner, name, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(StoppedError):
            run(source, out)


def swap_for_link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


def swap_for_hard_link(path: Path, target: Path) -> None:
    path.unlink()
    os.link(target, path)


def swap_for_pipe(path: Path, target: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("swap", [swap_for_link, swap_for_hard_link, swap_for_pipe])
@pytest.mark.parametrize("kind", ["rows", "bad"])
def test_what_the_journal_names_must_be_a_file_of_its_own(
    place: Path, monkeypatch: pytest.MonkeyPatch, swap: Callable[[Path, Path], None], kind: str
) -> None:
    kill_at(monkeypatch, resumable_output.ResumableOutput, "complete", place / "in.csv", place / "out.csv")
    (place / "target").write_text("mine" * 100)
    swap(next(place.glob(f".sentifactory-*.{kind}.part")), place / "target")
    with pytest.raises(ConfigError):
        run(place / "in.csv", place / "out.csv")
    assert (place / "target").read_text() == "mine" * 100
    assert not (place / "out.csv").exists()


@pytest.mark.parametrize(
    "field",
    [
        {"token": "../../etc/x"}, {"token": "a" * 31 + "/"}, {"rows": "1"}, {"labelling": 0}, {"counts": None},
        {"rows": -5}, {"rows": True}, {"rows": 2}, {"rows": 10**30}, {"bytes": -1}, {"bad_bytes": -7},
        {"counts": {"positive": "3"}}, {"counts": {"positive": 4, "negative": -1}},
        {"rows": 9, "counts": {"positive": 9}},
    ],
)  # fmt: skip
def test_a_journal_that_was_changed_is_not_followed(
    place: Path, monkeypatch: pytest.MonkeyPatch, field: dict[str, object]
) -> None:
    kill_at(monkeypatch, resumable_output, "place_new", place / "in.csv", place / "nothing.csv")
    assert sorted(read_all(place)) == ["in.csv"], "what did not begin leaves nothing"
    kill_at(monkeypatch, resumable_output.ResumableOutput, "complete", place / "in.csv", place / "out.csv")
    journal = place / "out.csv.journal.json"
    journal.write_text(json.dumps(json.loads(journal.read_text()) | field))
    before = read_all(place)
    for overwrite in (False, True) if field.get("rows") != 9 else (False,):
        with pytest.raises(ConfigError) as caught:
            run(place / "in.csv", place / "out.csv", overwrite=overwrite)
        assert caught.value.where == str(journal)
    assert read_all(place) == before


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_that_appears_meanwhile_stays_and_the_same_command_ends_the_work(tmp_path: Path, suffix: str) -> None:
    source, out = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    if suffix == ".csv":
        source.write_text("text\n很好\n", encoding="utf-8")
    else:
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({"text": ["很好"]}), source)

    class Planting(ScriptedEngine):
        def predict(self, *words):  # type: ignore[no-untyped-def]
            out.write_text("mine")
            return super().predict(*words)

    answerer = EngineRowPredictor(Planting(BINARY_SENTIMENT), "in")
    with pytest.raises(ConfigError):
        label_file(
            LabelOptions(source, out), AnswerFormatter(BINARY_SENTIMENT, "s"), {"engine": "s"}, lambda: answerer
        )
    assert out.read_text() == "mine"
    out.rename(tmp_path / "moved")
    assert run(source, out)["labelled"] == 1
    assert sorted(read_all(tmp_path)) == sorted([source.name, out.name, "moved"])


def test_a_second_process_is_refused_and_the_first_one_loses_nothing(place: Path) -> None:
    class Meddled(ScriptedEngine):
        def predict(self, *words):  # type: ignore[no-untyped-def]
            for overwrite in (False, True):
                with pytest.raises(ConfigError):
                    run(place / "in.csv", place / "out.csv", overwrite=overwrite)
            return super().predict(*words)

    answerer = EngineRowPredictor(Meddled(BINARY_SENTIMENT), "in")
    label_file(
        LabelOptions(place / "in.csv", place / "out.csv"),
        AnswerFormatter(BINARY_SENTIMENT, "s"),
        {"engine": "s"},
        lambda: answerer,
    )
    assert sorted(read_all(place)) == ["in.csv", "out.csv", "out.csv.bad.jsonl"]


def make_no_place(folder: Path, kind: str) -> Path:
    if kind == "below a file":
        return folder / "in.csv" / "out.csv"
    if kind == "a folder":
        (folder / "out.csv").mkdir()
        return folder / "out.csv"
    if kind == "long name":
        return folder / ("x" * 300 + ".csv")
    if kind == "long folder":
        return folder / ("x" * 300) / "out.csv"
    if kind == "long enough to have no journal":
        return folder / ("x" * 245 + ".csv")
    if kind == "loop":
        (folder / "loop").symlink_to("loop")
        return folder / "loop" / "out.csv"
    if kind == "proc":
        return Path("/proc/self/none/out.csv")
    os.mkfifo(folder / "out.csv")
    return folder / "out.csv"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "kind",
    ["below a file", "a folder", "long name", "long folder", "long enough to have no journal", "loop", "proc", "pipe"],
)
def test_a_place_that_cannot_be_written_is_found_before_labelling(place: Path, kind: str, overwrite: bool) -> None:
    out = make_no_place(place, kind)
    before = sorted(place.rglob("*"))
    with pytest.raises(ConfigError) as caught:
        label_file(
            LabelOptions(place / "in.csv", out, overwrite=overwrite),
            AnswerFormatter(BINARY_SENTIMENT, "s"),
            {"engine": "s"},
            lambda: pytest.fail("an engine was started"),
        )
    assert str(out) in caught.value.where
    assert sorted(place.rglob("*")) == before


def test_an_engine_that_does_not_start_leaves_the_folder_as_it_was(place: Path) -> None:
    def fail() -> EngineRowPredictor:
        raise EngineError("no")

    with pytest.raises(EngineError):
        label_file(
            LabelOptions(place / "in.csv", place / "new" / "out.csv"), AnswerFormatter(BINARY_SENTIMENT, "s"), {}, fail
        )
    assert sorted(path.name for path in place.iterdir()) == ["in.csv"]


FORMULAS = ["=1+1", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "＝1"]
NO_FORMULAS = ["-2", "+86", "-1.5e3", "3-2", "a=b", " =1", "'=1", ""]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_formulas_come_out_as_they_came_unless_they_shall_be_safe(tmp_path: Path, suffix: str) -> None:
    delimiter = "," if suffix == ".csv" else "\t"
    source, out = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    notes = [*FORMULAS, *NO_FORMULAS]
    with source.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows([["text", "=note"], *(["=很好", note] for note in notes)])

    def read_back() -> list[list[str]]:
        with out.open(encoding="utf-8", newline="") as stream:
            return [row[:2] for row in csv.reader(stream, delimiter=delimiter)]

    run(source, out)
    assert read_back() == [["text", "=note"], *(["=很好", note] for note in notes)]
    run(source, out, overwrite=True, is_excel_safe=True)
    expected = [*(f"'{note}" for note in FORMULAS), *NO_FORMULAS]
    assert read_back() == [["text", "'=note"], *(["'=很好", note] for note in expected)]


def test_only_tables_have_formulas_and_what_we_add_is_none(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "=1"}\n')
    with pytest.raises(ConfigError) as caught:
        run(tmp_path / "in.jsonl", tmp_path / "out.jsonl", is_excel_safe=True)
    assert caught.value.where == "--excel_safe"
    (tmp_path / "in.csv").write_text("text\n好\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        label_file(
            LabelOptions(tmp_path / "in.csv", tmp_path / "out.csv"),
            AnswerFormatter(BINARY_SENTIMENT, "=model"),
            {},
            lambda: pytest.fail("asked"),
        )
    assert caught.value.where == "--name"
