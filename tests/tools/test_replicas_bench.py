"""The bench of labelling over replicas counts what is lost, doubled or wrong; here it finds nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.service_bench.replicas import check_rows, kill_server, measure_labelling, write_replicas_table

pytest.importorskip("ray")
pytestmark = pytest.mark.slow


def test_what_is_asked_before_ray_starts_is_not_measured(tmp_path: Path) -> None:
    found = measure_labelling(tmp_path, 40, 0.01, 1)
    assert (found["texts_of_each"], found["asked_again"]) == ([40], 0)


def test_a_server_that_dies_loses_nothing(tmp_path: Path) -> None:
    found = measure_labelling(tmp_path, 1200, 0.002, 2, fault=kill_server)
    assert (found["rows_in"], found["rows_out"], found["rows_wrong"]) == (1200, 1200, 0)
    assert found["servers"] == 2
    machine = {"processor": "a chip", "cores": 2, "memory_gib": 24, "system": "Linux"}
    report = {"cases": {"one": found, "two": found}, "rows": 1200, "text_s": 0.002, "fails_s": 1, "machine": machine}
    for language in ("en", "zh"):
        assert write_replicas_table(report, language).count("1,200 / 1,200") == 2
    lines = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "out.csv").write_text("".join([*lines[:5], *lines[6:]]), encoding="utf-8")
    broken = check_rows(tmp_path / "in.csv", tmp_path / "out.csv")
    assert broken["rows_out"] == 1199
    assert broken["rows_wrong"] >= 1195 - 5
