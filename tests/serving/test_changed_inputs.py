"""`sentifactory label` on a file that another program writes to meanwhile: refused, and no row gets a wrong label."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from test_prior_adaptation import label as label_adapted
from test_prior_adaptation import write_input as write_shares

from sentifactory.engines.base import OnAnswer
from sentifactory.errors import ConfigError, DataError
from sentifactory.records import Prediction, Review
from sentifactory.serving.answer_format import AnswerFormatter
from sentifactory.serving.labelling import label_file as labelling
from sentifactory.serving.labelling.label_file import CHUNK_ROWS, EngineRowPredictor, LabelOptions, label_file
from sentifactory.task.task import BINARY_SENTIMENT
from tools.service_bench.scripted_engine import ScriptedEngine

TEXTS = [f"第{number}条" for number in range(CHUNK_ROWS + 100)]


def write_input(path: Path, texts: Sequence[str], columns: Sequence[str] = ("id", "text")) -> None:
    rows = [dict(zip(("id", "text"), row, strict=True)) for row in enumerate(texts)]
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({column: [row[column] for row in rows] for column in columns}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({column: row[column] for column in columns}) + "\n" for row in rows))
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([columns, *([row[column] for column in columns] for row in rows)])


CHANGES: dict[str, Callable[[Path], object]] = {
    "shorter": lambda path: write_input(path, TEXTS[:-1]),
    "longer": lambda path: write_input(path, [*TEXTS, "又一条"]),
    "other columns": lambda path: write_input(path, TEXTS, ("text", "id")),
    "fewer columns": lambda path: write_input(path, TEXTS, ("id",)),
    "other bytes": lambda path: path.write_bytes(b"\xff\xfe\x00" * 9),
    "gone": Path.unlink,
}


class MeddlingEngine(ScriptedEngine):
    """Calls a function at its so many-th batch, and remembers what it is asked."""

    def __init__(self, at: int = 0, meddle: Callable[[], None] = lambda: None) -> None:
        super().__init__(BINARY_SENTIMENT)
        self._at, self._meddle = at, meddle
        self.asked: list[str] = []

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        self.asked += [review.text for review in reviews]
        self._at -= 1
        if self._at == 0:
            self._meddle()
        return super().predict(reviews, on_answer)


def label(source: Path, engine: ScriptedEngine, meddle: Callable[[], object] = lambda: None) -> None:
    """Label the file, and meddle while the model loads."""

    def open_predictor() -> EngineRowPredictor:
        meddle()
        return EngineRowPredictor(engine, "in")

    formatter = AnswerFormatter(BINARY_SENTIMENT, "scripted")
    label_file(LabelOptions(source, source.with_stem("out")), formatter, {"engine": "scripted"}, open_predictor)


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_file_that_changes_while_the_model_loads_is_refused(tmp_path: Path, kind: str, change: str) -> None:
    source = tmp_path / f"in.{kind}"
    write_input(source, TEXTS)
    with pytest.raises(DataError) as refused:
        label(source, MeddlingEngine(), lambda: CHANGES[change](source))
    assert (refused.value.code, refused.value.exit_code) == ("input-changed", 2)
    assert list_names(tmp_path) == ([] if change == "gone" else [source.name])


def test_what_is_kept_has_the_labels_of_its_own_texts(tmp_path: Path) -> None:
    source, whole = tmp_path / "in.csv", tmp_path / "whole.csv"
    for path in (source, whole):
        write_input(path, TEXTS)
    label(whole, MeddlingEngine())
    expected = (tmp_path / "out.csv").read_bytes()
    (tmp_path / "out.csv").unlink()
    before = source.read_bytes()
    changing = MeddlingEngine(2, lambda: write_input(source, TEXTS[::-1][1:]))
    with pytest.raises(DataError) as refused:
        label(source, changing)
    assert refused.value.code == "input-changed"
    assert not (tmp_path / "out.csv").exists()
    with pytest.raises(ConfigError, match="input"):
        label(source, MeddlingEngine())
    source.write_bytes(before)
    engine = MeddlingEngine()
    label(source, engine)
    assert engine.asked == TEXTS[CHUNK_ROWS:], "what was read before the change is kept, and nothing else"
    assert (tmp_path / "out.csv").read_bytes() == expected


@pytest.mark.parametrize("grows", [False, True])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_that_changes_while_the_adapted_answers_are_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, *, grows: bool
) -> None:
    source, _ = write_shares(tmp_path, kind=kind)
    before = source.read_bytes()
    write_adapted = labelling.write_adapted

    def write_while_it_changes(*words: object) -> None:
        write_shares(tmp_path, kind=kind, n=700 if grows else 600, share=0.1)
        write_adapted(*words)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(labelling, "write_adapted", write_while_it_changes)
        with pytest.raises(DataError) as refused:
            label_adapted(source)
    assert refused.value.code == "input-changed"
    assert not (tmp_path / f"out.{kind}").exists()
    source.write_bytes(before)
    summary = label_adapted(source)
    assert summary["labelled"] == 594
    assert list_names(tmp_path) == sorted([f"in.{kind}", f"out.{kind}", f"out.{kind}.bad.jsonl"])
