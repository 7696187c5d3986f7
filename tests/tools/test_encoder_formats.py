"""The benchmark of an encoder runs whole on a tiny one; its table and its goals say what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from onnx_workshop import copy_graph

from sentifactory.engines.engine_process import time_batches
from sentifactory.publishing.onnx import onnx_export
from sentifactory.records import Review
from tools.benches import encoder_formats
from tools.benches.encoder_formats_report import format_bench, list_goals

pytestmark = pytest.mark.slow


class InThisProcess:
    """Stands in for `EngineProcess`, whose four real ones would load torch twice."""

    def __init__(self, open_engine: Any, name: str) -> None:
        self._engine = open_engine()
        self._peak_bytes = 200 if name.startswith("PyTorch") else 100

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()

    def predict(self, reviews: list[Review]) -> Any:
        predictions, seconds = time_batches(self._engine, [reviews])
        return predictions, seconds[0]

    def predict_singly(self, reviews: list[Review]) -> Any:
        return time_batches(self._engine, [[review] for review in reviews])

    def read_peak_bytes(self) -> int:
        return self._peak_bytes


def test_it_measures_every_way(
    checkpoint: Path, val_csv: Path, float32_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "write_graph", copy_graph(float32_graph))
    monkeypatch.setattr(onnx_export, "measure_export", lambda *_: {})
    monkeypatch.setattr(encoder_formats, "EngineProcess", InThisProcess)
    encoder_formats.bench_encoder(
        str(checkpoint),
        str(val_csv),
        str(val_csv),
        max_samples=24,
        single_samples=3,
        rounds=2,
        max_flips=0.1,
        max_difference=0.05,
        output_dir=tmp_path,
    )
    figures = json.loads((tmp_path / "encoder.json").read_text())
    assert list(figures["ways"]) == list(encoder_formats.FORMATS)
    assert figures["ways"]["a"]["reviews"] == figures["ways"]["d"]["reviews"] == [12, 12]
    assert figures["ways"]["f"]["reviews"] == [3, 3]
    assert figures["ways"]["a"]["accuracy"] == figures["ways"]["c"]["accuracy"], "the same model in another form"
    assert figures["ways"]["d"]["peak_bytes"] == 100
    table = (tmp_path / "encoder.md").read_text()
    assert table == format_bench(figures) + "\n"
    for what in encoder_formats.FORMATS.values():
        assert what in table


def test_goals_are_met_or_not() -> None:
    def tell(rates: tuple[float, float, float], peaks: tuple[int | None, int], difference: float) -> list[bool]:
        ways = {
            "a": {"reviews_per_s": rates[0], "peak_bytes": peaks[1]},
            "d": {"reviews_per_s": rates[1], "peak_bytes": peaks[0]},
            "f": {"reviews_per_s": rates[2], "peak_bytes": None},
        }
        return [goal["is_met"] for goal in list_goals(ways, difference)]

    assert tell((10, 30, 15), (500, 1000), -0.005) == [True] * 4
    assert tell((10, 29, 15), (501, 1000), -0.006) == [False] * 4
    assert tell((10, 40, 15), (None, 1000), 0.1) == [True, False, True, True]
