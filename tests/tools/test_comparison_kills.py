"""The bench that kills comparisons: it kills as often as asked, goes on to the end, and sees a report that differs."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import typer

from sentifactory.errors import EngineError
from sentifactory.system.hardware import describe_machine
from sentifactory.training.run.provenance import describe_versions
from tools.reliability import comparison_kills
from tools.reliability.comparison_kills import KillPlan, bench_compare_kills, kill_comparisons, kill_servers
from tools.reliability.kill_records import KillRecord, drop_times, format_records, list_differences

DRIVER = Path(__file__).with_name("comparison_kill_driver.py")
LABELS = {"labels": [0, 1, 0, 1, 1]}
EXPECTED = {"base": LABELS, "tuned": LABELS, "predictions": LABELS["labels"]}


class DriverPlan(KillPlan):
    """Runs the driver in the comparison's place."""

    def start(self) -> subprocess.Popen[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen([sys.executable, str(DRIVER), str(self.folder), *self.words])


@pytest.mark.slow
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


def test_vllm_is_killed_while_it_answers(tmp_path: Path) -> None:
    plan = DriverPlan(["0.2", "/opt/vllm"], tmp_path / "server")
    records = kill_servers(plan, 3, 5, EXPECTED, random.Random(1))
    assert [record.victim for record in records] == ["vLLM"] * 3
    assert [record.answers for record in records] == sorted({record.answers for record in records})
    assert all(0 < record.answers < 10 and record.answers != 5 for record in records)
    assert all(record.differences == [] and record.after_s > 0 for record in records)
    assert int((tmp_path / "starts").read_text()) == 4
    assert not plan.folder.exists()


def test_a_server_that_cannot_be_found_is_not_said_to_be_killed(tmp_path: Path) -> None:
    plan = DriverPlan(["0.05", "/opt/another"], tmp_path / "server")
    with pytest.raises(EngineError, match="All answers arrived before vLLM could be killed") as error:
        kill_servers(plan, 1, 5, EXPECTED, random.Random(1))
    assert error.value.next_step == "raise --max_samples"


@pytest.mark.slow
@pytest.mark.parametrize("spoilt", [False, True])
def test_the_whole_bench(
    spoilt: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []

    class Plan(DriverPlan):
        def start(self) -> subprocess.Popen[bytes]:
            asked.append([self.folder.name, *self.words])
            server = ["/opt/vllm"] if self.folder.name == "server" else []
            return DriverPlan(["0.1", *server], self.folder).start()

    monkeypatch.setattr(comparison_kills, "KillPlan", Plan)
    if spoilt:
        monkeypatch.setattr(comparison_kills, "list_differences", lambda *_: ["$.a: 1, 2"] * 9)
    old = tmp_path / "compare_kills" / "old"
    old.mkdir(parents=True)
    options = {"csv_path": "t.csv", "max_samples": 5, "kills": 2, "vllm_kills": 1, "output_dir": str(tmp_path)}
    with pytest.raises(typer.Exit) if spoilt else nullcontext() as ended:
        bench_compare_kills("b", "f", engine="vllm", seed=3, **options)  # type: ignore[arg-type]
    assert ended is None or ended.value.exit_code == 1
    words = ["--base_model", "b", "--finetuned_model", "f", "--csv_path", "t.csv"]
    words += ["--engine", "vllm", "--max_samples", "5"]
    assert {tuple(one) for one in asked} == {(name, *words) for name in ("undisturbed", "killed", "server")}
    facts = json.loads((tmp_path / "compare_kills.json").read_text())
    assert [record["victim"] for record in facts["kills"]] == ["comparison"] * 2 + ["vLLM"]
    assert [len(record["differences"]) for record in facts["kills"]] == [5 if spoilt else 0] * 3
    assert facts["engine"] == "vllm"
    assert facts["wall_s"] >= 1
    assert facts["machine"] == describe_machine()
    assert facts["versions"] == describe_versions(["vllm"])
    table = (tmp_path / "compare_kills.md").read_text()
    assert table == capsys.readouterr().out
    assert f"{0 if spoilt else 3} of 3 kills led to the undisturbed report" in table
    assert (tmp_path / "compare_kills").exists() is spoilt, "kept to be looked at where it differs"
    assert not old.exists()


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
