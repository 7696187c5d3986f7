"""`sentifactory label`: rows out are rows in, each once and in order, whatever is in them and whoever kills it."""

from __future__ import annotations

import codecs
import csv
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from sentifactory.engines.base import ClosingEngine, OnAnswer
from sentifactory.errors import ConfigError, DataError, EngineError
from sentifactory.records import Prediction, Review
from sentifactory.serving.answer_format import AnswerFormatter
from sentifactory.serving.labelling.label_file import EngineRowPredictor, LabelOptions, label_file
from sentifactory.serving.labelling.resumable_output import ResumableOutput
from sentifactory.system.stop_signals import StoppedError
from sentifactory.task.task import BINARY_SENTIMENT
from tools.service_bench.scripted_engine import ScriptedEngine, script_answer

DRIVER = Path(__file__).with_name("label_driver.py")
REPORTER = AnswerFormatter(BINARY_SENTIMENT, "scripted")
SCRIPTED = {"engine": "scripted"}
NAMES = BINARY_SENTIMENT.labels


def run(source: Path, out: Path, engine: object = None, **options: object) -> dict:
    answerer = EngineRowPredictor(engine or ScriptedEngine(BINARY_SENTIMENT), "in")  # type: ignore[arg-type]
    return label_file(LabelOptions(source, out, **options), REPORTER, SCRIPTED, lambda: answerer)  # type: ignore[arg-type]


def name_of(text: str) -> str:
    return NAMES[script_answer(text, 2).label or 0]


def test_csv_keeps_every_cell_and_gets_three_more(tmp_path: Path) -> None:
    cells = [["1", "很好", "a,b"], ["2", '他说"差"\n真的', ""], ["3", "NA", "=1+1"], ["4", "  前后  ", "尾"]]
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    with source.open("w", encoding="gb18030", newline="") as stream:
        csv.writer(stream).writerows([["id", "review", "note"], *cells])
    summary = run(source, out)
    with out.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["id", "review", "note", "label", "probability", "model"]
    assert [row[:3] for row in rows[1:]] == cells
    assert [row[3] for row in rows[1:]] == [name_of(row[1].strip()) for row in cells]
    assert [float(row[4]) for row in rows[1:]] == pytest.approx(
        [max(script_answer(row[1].strip(), 2).probabilities or ()) for row in cells], abs=1e-6
    )
    assert {row[5] for row in rows[1:]} == {"scripted"}
    assert summary["labelled"] == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("in.csv", ["id,review,note", '"001",很好,"a,b"', '"002","他说""差""\n真的",', "003,'行',"]),
        ("in.tsv", ["id\treview\tnote", '1\t他说"差"真的\t尾', '2\t"两\t格"\t""']),
        ("in.jsonl", ['{"review": "很好"}', '{"review": "差"}']),
    ],
)
def test_mark_line_ends_and_quotes_stay(
    tmp_path: Path, name: str, rows: list[str], line_end: str, encoding: str
) -> None:
    source, out = tmp_path / name, tmp_path / f"out{Path(name).suffix}"
    source.write_bytes(line_end.join([*rows, ""]).encode(encoding))
    run(source, out)
    content = out.read_bytes()
    assert content.startswith(codecs.BOM_UTF8) == (encoding in ("utf-8-sig", "utf-16"))
    written, place = content.decode("utf-8-sig"), 0
    for row in rows:
        kept = row.rstrip("}")
        assert written.startswith(kept, place)
        place = written.index(line_end, place + len(kept)) + len(line_end)
    assert place == len(written)


def test_empty_cells_beyond_the_header_do_not_move_the_added_ones(tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text('text,n\n好,1,,\n差,2,""\n"好,",\n', encoding="utf-8")
    run(source, out)
    rows = list(csv.DictReader(out.open(encoding="utf-8", newline="")))
    assert [(row["text"], row["n"], row["label"]) for row in rows] == [
        (text, n, name_of(text)) for text, n in [("好", "1"), ("差", "2"), ("好,", "")]
    ]


def test_texts_are_asked_as_training_texts_are_and_invisible_ones_are_blank(tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    texts = ["房间&amp;服务&#128077;", "\u200b很好\ufeff", "\u200b\u200d\ufeff", "&nbsp;&#8203;", "很好"]
    source.write_text("".join(f"{text}\n" for text in ["text", *texts]), encoding="utf-8")
    engine = FailingEngine(100)
    summary = run(source, out, engine)
    assert engine.asked == ["很好", "\u200b很好\ufeff".strip("\u200b\ufeff"), "房间&服务👍"]
    rows = list(csv.DictReader(out.open(encoding="utf-8", newline="")))
    assert [row["text"] for row in rows] == [texts[0], texts[1], texts[4]]
    bad = [json.loads(line) for line in (tmp_path / "out.csv.bad.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["line"] for row in bad] == [4, 5]
    assert summary["labelled"] == 3


def test_bad_rows_go_to_a_side_file_with_line_and_reason(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = ['{"text": "好", "n": 1.5}', "no json", '{"text": " "}', '{"text": 7}', '{"n": 1}', '{"text": "\\ud800"}']
    lines += ['{"label": "x", "text": "差", "other": "\\ud83d"}']
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    summary = run(source, out)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in rows] == ["好", "差"]
    assert rows[0]["n"] == 1.5
    assert rows[1]["label"] == "x", "what stood there stays"
    assert [row["predicted_label"] for row in rows] == [name_of("好"), name_of("差")]
    bad = [json.loads(line) for line in (tmp_path / "out.jsonl.bad.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["line"] for row in bad] == [2, 3, 4, 5, 6]
    assert all(row["reason"] and row["row"] for row in bad)
    assert summary["counts"]["bad_rows"] == 5
    assert summary["labelled"] + summary["counts"]["bad_rows"] == summary["rows"] == 7


def test_parquet_keeps_types_and_order(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    source, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    texts = [f"第{number}条" if number % 50 else " " for number in range(1, 501)]
    table = pa.table({"text": texts, "when": pa.array(range(500), pa.timestamp("s")), "tags": [["a", "b"]] * 500})
    parquet.write_table(table, source, row_group_size=64)
    table = parquet.read_table(source)
    summary = run(source, out)
    found = parquet.read_table(out)
    kept = [place for place, text in enumerate(texts) if text.strip()]
    assert found.select(table.column_names).equals(table.take(kept))
    assert found.column("label").to_pylist() == [name_of(texts[place]) for place in kept]
    assert str(found.schema.field("probability").type) == "double"
    assert summary["counts"]["bad_rows"] == 10


class FailingEngine(ClosingEngine):
    """Answers so many reviews, out of order, and then fails."""

    name = "failing"

    def __init__(self, number: int) -> None:
        self.number = number
        self.asked: list[str] = []

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        order = sorted(range(len(reviews)), key=lambda place: (place // 10, -place))
        for place in order:
            if self.number == 0:
                raise EngineError("It has ended")
            self.number -= 1
            self.asked.append(reviews[place].text)
            on_answer(place, script_answer(reviews[place].text, 2))  # type: ignore[misc]
        return []


def test_a_run_that_failed_goes_on_and_asks_nothing_twice_that_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sentifactory.serving.labelling.label_file.WRITE_EVERY_S", 0.0)
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    texts = [f"第{number}条" for number in range(95)]
    source.write_text("text\n" + "".join(f"{text}\n" for text in texts), encoding="utf-8")
    with pytest.raises(EngineError):
        run(source, out, FailingEngine(35))
    assert not out.exists()
    with pytest.raises(ConfigError, match="settings differ from it: model"):
        label_file(
            LabelOptions(source, out),
            AnswerFormatter(BINARY_SENTIMENT, "other"),
            SCRIPTED,
            lambda: pytest.fail("asked"),
        )
    with next(tmp_path.glob(".sentifactory-*.rows.part")).open("a") as part:
        part.write("half a line that a killed process wrote")
    engine = FailingEngine(1000)
    run(source, out, engine)
    assert len(engine.asked) == 95 - 30
    rows = list(csv.DictReader(out.open(encoding="utf-8")))
    assert [row["text"] for row in rows] == texts
    assert [row["label"] for row in rows] == [name_of(text) for text in texts]
    with pytest.raises(ConfigError, match="exists already"):
        run(source, out)
    run(source, out, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_bad_rows_are_synced_to_disk_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text,n\n好,0\n" + ",1\n" * 20_000, encoding="utf-8")
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    assert run(source, out)["counts"]["bad_rows"] == 20_000
    assert len(synced) < 20


@pytest.mark.parametrize("killed", ["", "before", "after"])
def test_an_output_without_rows_replaces_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    """Also where the process ends with all rows done, before or after the output is put into its place."""
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "好"}\n', encoding="utf-8")
    run(source, out)
    source.write_text('{"text": ""}\n', encoding="utf-8")
    if killed:
        place = ResumableOutput._place

        def fail(spool: ResumableOutput, part: Path, target: Path) -> None:
            if killed == "after":
                place(spool, part, target)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(ResumableOutput, "_place", fail)
            with pytest.raises(StoppedError):
                run(source, out, overwrite=True)
    run(source, out, overwrite=not killed)
    assert out.read_bytes() == b""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl", "out.jsonl.bad.jsonl"]


def test_what_cannot_be_labelled_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="none of them is a text column"):
        run(source, tmp_path / "out.csv")
    with pytest.raises(ConfigError, match="another file"):
        run(source, source)
    with pytest.raises(ConfigError, match="another file"):
        run(source, tmp_path / "out.parquet")
    with pytest.raises(DataError, match="no such file"):
        run(tmp_path / "none.csv", tmp_path / "out.csv")
    for content in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"PAR1", b"<html>"):
        source.write_bytes(content + bytes(99))
        with pytest.raises(DataError, match="This is a"):
            run(source, tmp_path / "out.csv")
    source.write_text("text,label,predicted_label\n好,1,1\n")
    with pytest.raises(ConfigError, match="labelled twice"):
        run(source, tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "n_kills"), [(".csv", 5), (".parquet", 3)])
def test_however_often_killed_every_row_comes_out_once_and_in_order(tmp_path: Path, suffix: str, n_kills: int) -> None:
    texts = [f"第{number}条，{'好' * (number % 7)}" for number in range(2000)]
    source, out = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    if suffix == ".csv":
        source.write_text("text\n" + "".join(f'"{text}"\n' for text in texts), encoding="utf-8")
    else:
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({"text": texts}), source)
    command = [sys.executable, str(DRIVER), str(source), str(out), "0.001", "0.05"]
    dice = random.Random(7)
    kills = 0
    journal = tmp_path / f"out{suffix}.journal.json"
    for _ in range(60):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ})
        if kills < n_kills:
            before = journal.read_text() if journal.exists() else ""
            while process.poll() is None and (journal.read_text() if journal.exists() else "") == before:
                time.sleep(0.002)
            time.sleep(dice.random() * 0.05)
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        elif process.wait() == 0:
            break
    assert kills == n_kills, "every run was killed while it was writing"
    if suffix == ".csv":
        found = [row["text"] for row in csv.DictReader(out.open(encoding="utf-8"))]
    else:
        found = parquet.read_table(out).column("text").to_pylist()
    assert found == texts
    assert sorted(path.name for path in tmp_path.iterdir() if "cache" not in path.name) == sorted(
        [source.name, out.name]
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_labelling_says_what_is_done_and_how_to_continue(tmp_path: Path, number: int) -> None:
    source, out, journal = (tmp_path / name for name in ("我的 in.csv", "out.csv", "out.csv.journal.json"))
    source.write_text("text\n" + "".join(f"第{row}条\n" for row in range(2000)), encoding="utf-8")
    command = [sys.executable, str(DRIVER), str(source), str(out), "0.001", "0.05"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ})
    while not journal.exists() or not json.loads(journal.read_text())["rows"]:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(number)
    said = process.communicate(timeout=20)[1].splitlines()[-1]
    assert process.returncode == 128 + number
    rows = json.loads(journal.read_text())["rows"]
    assert 0 < rows < 2000
    assert f"{rows} of 2000 rows" in said
    assert said.endswith(shlex.join(command[2:]))
    assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0
    assert [row["text"] for row in csv.DictReader(out.open(encoding="utf-8"))] == [f"第{row}条" for row in range(2000)]


class StoppedEngine(ScriptedEngine):
    """Is stopped before its first answer."""

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        os.kill(os.getpid(), signal.SIGTERM)
        return []


def test_a_labelling_that_is_stopped_before_its_first_row_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text\n很好\n", encoding="utf-8")
    former = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedError) as caught:
        run(source, tmp_path / "made" / "out.csv", StoppedEngine(BINARY_SENTIMENT))
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is former
    assert list(tmp_path.iterdir()) == [source]


def test_a_killed_labelling_without_a_row_does_not_stand_in_the_way_of_other_settings(tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text\n很好\n", encoding="utf-8")
    left = ResumableOutput(out, {"threshold": 0.5}, b"text\n")
    left._open_files.close()  # as after a kill
    assert run(source, out)["labelled"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_garbled_texts_are_labelled_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text\n很好\n" + "房间很干净\n".encode().decode("latin-1").replace("\x85", ""), encoding="utf-8")
    summary = run(source, out)
    assert summary["labelled"] == 2
    assert "1 of 2 texts (50.0%) look garbled" in (told := capsys.readouterr().err)
    assert f"{source}, line 3" in told
