"""The bench that kills comparisons: it kills as often as asked, goes on to the end, and sees a report that differs."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sentifactory.errors import EngineError
from sentifactory.evaluation.kill_bench import KillPlan, kill_comparisons
from sentifactory.evaluation.kill_records import KillRecord, drop_times, format_records, list_differences

DRIVER = Path(__file__).with_name("kill_driver.py")
LABELS = {"labels": [0, 1, 0, 1, 1]}
EXPECTED = {"base": LABELS, "tuned": LABELS}


class DriverPlan(KillPlan):
    """Runs the driver in the comparison's place."""

    def start(self) -> subprocess.Popen[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen([sys.executable, str(DRIVER), str(self.folder), *self.words])


def test_a_comparison_is_killed_as_often_as_asked_and_finished(tmp_path: Path) -> None:
    plan = DriverPlan(["0.05"], tmp_path / "killed")
    records = kill_comparisons(plan, 6, 0.5, EXPECTED, random.Random(1))
    assert [record.victim for record in records] == ["comparison"] * 6
    assert all(record.differences == [] and record.survivors == 0 for record in records)
    assert all(0 <= record.answers <= 10 for record in records)
    assert not plan.folder.exists()


def test_a_report_that_differs_is_seen(tmp_path: Path) -> None:
    other = {**EXPECTED, "tuned": {"labels": [0, 1, 0, 1, 0]}}
    records = kill_comparisons(DriverPlan(["0.05"], tmp_path / "killed"), 1, 0.2, other, random.Random(1))
    assert records[0].differences == ["$.tuned.labels[4]: 0, 1"]
    assert (tmp_path / "killed" / "report.json").exists()  # to be looked at


def test_a_comparison_that_fails_ends_the_bench(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="exit code 1"):
        kill_comparisons(DriverPlan(["no number"], tmp_path / "killed"), 1, 60.0, EXPECTED, random.Random(1))


def test_times_are_no_difference() -> None:
    report: dict[str, Any] = {"created_at": "now", "models": [{"start_s": 1, "name": "base"}], "command": "x"}
    assert drop_times(report) == {"models": [{"name": "base"}]}
    assert list(list_differences({"a": 1}, {"a": 1})) == []
    assert list(list_differences([1, 2], [1, 2, 3])) == ["$: [1, 2], [1, 2, 3]"]


def test_the_table_names_what_differs() -> None:
    records = [KillRecord("comparison", 12.34, 7), KillRecord("vLLM", 80.0, 20, differences=["$.a: 1, 2"])]
    lines = format_records(records, 150.4).splitlines()
    assert lines[2] == "| comparison | 12.3 | 7 | 0 processes | equal |"
    assert lines[3] == "| vLLM | 80.0 | 20 | 0 processes | $.a: 1, 2 |"
    assert lines[-1] == "1 of 2 kills led to the undisturbed report; it took 150 s."
