"""`sentifactory label --adapt_prior`: answers follow the shares of the labels, and a killed run continues anywhere."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.engines.base import ClosingEngine, OnAnswer, report_answers
from sentifactory.errors import ConfigError
from sentifactory.metrics.bias_correction import fit_bias_correction
from sentifactory.metrics.calibration import Calibration
from sentifactory.metrics.prior_shift import MIN_REVIEWS
from sentifactory.records import Prediction, Review
from sentifactory.serving.answer_format import AnswerFormatter
from sentifactory.serving.labelling.label_file import EngineRowPredictor, LabelOptions, label_file
from sentifactory.serving.labelling.resumable_output import ResumableOutput
from sentifactory.system.stop_signals import StoppedError
from sentifactory.task.task import BINARY_SENTIMENT

ROWS, SHARE = 600, 0.85


def draw(n: int, share: float, seed: int) -> tuple[list[int], np.ndarray]:
    """Labels, and the share of label 1 that a model gives them, twice as sure as it should be."""
    dice = np.random.default_rng(seed)
    truth = (np.arange(n) < share * n).astype(int)
    scores = 2 * (2 * truth - 1) * 1.2 + 2 * 1.5 * dice.normal(size=n)
    return truth.tolist(), 1 / (1 + np.exp(-scores))


def make_calibration() -> Calibration:
    truth, likely = draw(500, 0.5, 1)
    correction = fit_bias_correction(truth, np.column_stack([1 - likely, likely]))
    return Calibration("temperature", 2.0, (0.0, 0.0), "t", "", None, 0.95, {}, {}, correction)


CALIBRATION = make_calibration()
FORMATTER = AnswerFormatter(BINARY_SENTIMENT, "scripted", CALIBRATION)


class SharesEngine(ClosingEngine):
    """Answers with the share that a text names; fails after so many texts."""

    name = "shares"

    def __init__(self, fails_after: int | None = None) -> None:
        self.asked = 0
        self._left = fails_after

    def predict(self, reviews: Sequence[Review], on_answer: OnAnswer | None = None) -> list[Prediction]:
        self.asked += len(reviews)
        if self._left is not None and self.asked > self._left:
            raise KeyboardInterrupt
        shares = [float(review.text.split()[1]) for review in reviews]
        return report_answers([Prediction(int(one > 0.5), (1 - one, one)) for one in shares], on_answer)


def write_input(folder: Path, share: float = SHARE, n: int = ROWS, kind: str = "csv") -> tuple[Path, list[int]]:
    """A file of texts that name their share, every hundredth of them blank, and the true labels."""
    truth, likely = draw(n, share, 2)
    texts = [" " if row % 100 == 50 else f"评论 {one:.6f}" for row, one in enumerate(likely)]
    path = folder / f"in.{kind}"
    if kind == "parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({"text": texts}), path, row_group_size=64)
    elif kind == "jsonl":
        path.write_text("".join(f"{json.dumps({'text': text})}\n" for text in texts), encoding="utf-8")
    else:
        path.write_text("".join(f"{line}\n" for line in ["text", *texts]), encoding="utf-8")
    return path, [label for label, text in zip(truth, texts, strict=True) if text.strip()]


def label(source: Path, engine: ClosingEngine | None = None, **options: Any) -> dict[str, Any]:
    formatter = options.pop("formatter", FORMATTER)
    values = {"adapt_prior": True, **options}
    return label_file(
        LabelOptions(source, source.with_stem("out"), **values),
        formatter,
        {"engine": "shares"},
        lambda: EngineRowPredictor(engine or SharesEngine(), "in"),
    )


def read_rows(out: Path) -> list[dict[str, Any]]:
    if out.suffix == ".parquet":
        from pyarrow import parquet

        return list(parquet.read_table(out).to_pylist())
    if out.suffix == ".jsonl":
        return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return list(csv.DictReader(out.open(encoding="utf-8", newline="")))


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_answers_follow_the_shares_and_the_ones_before_stand_beside(tmp_path: Path, kind: str) -> None:
    source, truth = write_input(tmp_path, kind=kind)
    summary = label(source)
    rows = read_rows(tmp_path / f"out.{kind}")
    named = [BINARY_SENTIMENT.labels[one] for one in truth]
    before, after = (
        sum(row[column] == name for row, name in zip(rows, named, strict=True))
        for column in ("unadapted_label", "label")
    )
    assert after > before + 10
    shift = summary["prior_shift"]
    assert shift["adapted"]
    found = shift["shares"]["positive"]
    assert found["low"] < SHARE < found["high"]
    assert found["validation"] == 0.5
    assert summary["counts"]["positive"] == sum(row["label"] == "positive" for row in rows)
    assert shift["counts_before"]["positive"] == sum(row["unadapted_label"] == "positive" for row in rows)
    assert summary["counts"]["bad_rows"] == 6
    assert summary["labelled"] == len(rows) == ROWS - 6
    assert np.mean([float(row["probability"]) for row in rows]) > 0.5
    first = float(rows[0]["text"].split()[1])
    expected = CALIBRATION.apply((1 - first, first))
    assert float(rows[0]["unadapted_probability"]) == pytest.approx(max(expected), abs=1e-5)
    assert list_names(tmp_path) == sorted([f"in.{kind}", f"out.{kind}", f"out.{kind}.bad.jsonl"])


def test_without_a_shift_the_answers_stay(tmp_path: Path) -> None:
    source, _ = write_input(tmp_path, share=0.5)
    summary = label(source)
    assert not summary["prior_shift"]["adapted"]
    assert summary["counts"] == summary["prior_shift"]["counts_before"]
    for row in read_rows(tmp_path / "out.csv"):
        assert (row["label"], row["probability"]) == (row["unadapted_label"], row["unadapted_probability"])


def stop_at(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(ResumableOutput, name, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))


KILLS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "before the estimate": lambda patch: stop_at(patch, "read_rows"),
    "before the note": lambda patch: stop_at(patch, "keep_note"),
    "before the output": lambda patch: stop_at(patch, "complete"),
    "before the output has its name": lambda patch: stop_at(patch, "_place"),
}


@pytest.mark.parametrize("when", KILLS)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_killed_run_continues_and_asks_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, kind: str
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
        write_input(folder, kind=kind)
    expected = label(whole / f"in.{kind}")
    with pytest.raises(StoppedError):
        label(cut / f"in.{kind}", SharesEngine(fails_after=550))
    with monkeypatch.context() as patch:
        KILLS[when](patch)
        with pytest.raises(StoppedError):
            label(cut / f"in.{kind}")
    engine = SharesEngine()
    summary = label(cut / f"in.{kind}", engine)
    assert engine.asked == 0
    places = ("output", "bad_rows_file")
    assert {key: value for key, value in summary.items() if key not in places} == {
        key: value for key, value in expected.items() if key not in places
    }
    assert read_rows(cut / f"out.{kind}") == read_rows(whole / f"out.{kind}")
    assert list_names(cut) == list_names(whole)


def test_thin_evidence_is_refused_and_the_answers_are_not_lost(tmp_path: Path) -> None:
    source, _ = write_input(tmp_path, share=1.0, n=120)
    # Certain answers of one label alone: its share has no estimate within 0 and 1.
    source.write_text("text\n" + "评论 0.999999\n" * 120, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        label(source)
    assert (refused.value.code, refused.value.exit_code) == ("prior-thin", 2)
    assert not (tmp_path / "out.csv").exists()
    engine = SharesEngine()
    summary = label(source, engine, adapt_prior=False)
    assert engine.asked == 0
    assert summary["counts"] == {"positive": 120}
    assert summary["prior_shift"] is None
    assert list(read_rows(tmp_path / "out.csv")[0]) == ["text", "label", "probability", "model"]
    assert list_names(tmp_path) == ["in.csv", "out.csv"]


def test_what_cannot_be_adapted_is_refused_before_the_model_is_asked(tmp_path: Path) -> None:
    engine = SharesEngine()
    source, _ = write_input(tmp_path)
    for formatter in (
        AnswerFormatter(BINARY_SENTIMENT, "m"),
        AnswerFormatter(
            BINARY_SENTIMENT, "m", Calibration("temperature", 2.0, (0.0, 0.0), "t", "", None, 0.95, {}, {})
        ),
    ):
        with pytest.raises(ConfigError) as refused:
            label(source, engine, formatter=formatter)
        assert refused.value.code == "prior-no-correction"
    few, _ = write_input(tmp_path, n=MIN_REVIEWS - 1)
    with pytest.raises(ConfigError) as refused:
        label(few, engine)
    assert refused.value.code == "prior-thin"
    assert engine.asked == 0
    assert list_names(tmp_path) == ["in.csv"]


def test_the_command_passes_the_option_on(tmp_path: Path) -> None:
    source, _ = write_input(tmp_path)
    train = tmp_path / "train.csv"
    train.write_text("text,label\n很好,1\n好极了,1\n太差,0\n很差,0\n", encoding="utf-8")
    words = ["label", str(source), str(tmp_path / "out.csv"), "--model", str(train), "--adapt_prior"]
    refused = CliRunner().invoke(build_app(), words).exception
    assert isinstance(refused, ConfigError)
    assert refused.code == "prior-no-correction"


def test_an_unfinished_plain_labelling_is_not_continued_as_an_adapted_one(tmp_path: Path) -> None:
    source, _ = write_input(tmp_path)
    with pytest.raises(StoppedError):
        label(source, SharesEngine(fails_after=550), adapt_prior=False)
    with pytest.raises(ConfigError) as refused:
        label(source)
    assert "--adapt_prior" in refused.value.what
    assert label(source, overwrite=True)["prior_shift"]["adapted"]


def test_an_output_that_was_written_adapted_is_not_finished_as_a_plain_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = write_input(tmp_path)
    with monkeypatch.context() as patch:
        stop_at(patch, "_place")
        with pytest.raises(StoppedError):
            label(source)
    with pytest.raises(ConfigError) as refused:
        label(source, adapt_prior=False)
    assert refused.value.code == "prior-written-otherwise"
    assert label(source)["prior_shift"]["adapted"]


def test_the_threshold_applies_to_adapted_probabilities(tmp_path: Path) -> None:
    source, _ = write_input(tmp_path)
    summary = label(source, formatter=AnswerFormatter(BINARY_SENTIMENT, "m", CALIBRATION, 0.9))
    rows = read_rows(tmp_path / "out.csv")
    assert summary["counts"]["unsure"] == sum(not row["label"] for row in rows) > 0
    assert all((float(row["probability"]) >= 0.9) == bool(row["label"]) for row in rows)
