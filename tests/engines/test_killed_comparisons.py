"""The bench that kills comparisons, and the vLLM below them: whole, with the real command and the stand-in of vLLM."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from tools.reliability import comparison_kills
from tools.reliability.comparison_kills import bench_compare_kills


def run_bench(folder: Path, model: Path) -> None:
    with (folder / "test.csv").open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["label", "text"])
        rows.writerows((number % 2, f"{'差好乱'[number % 3]}，第{number}家") for number in range(120))
    bench_compare_kills(
        base_model=str(model), tuned_model=str(model), csv_path=str(folder / "test.csv"), engine="vllm",
        max_samples=120, kills=2, vllm_kills=2, seed=3, output_dir=str(folder / "bench"),
    )  # fmt: skip


@pytest.mark.slow
def test_killed_comparisons_and_servers_lead_to_the_same_report(
    tmp_path: Path, fake_vllm: Callable[..., None], model_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fake_vllm(answer_delay_s=0.2)
    run_bench(tmp_path, model_folder)
    kills = json.loads((tmp_path / "bench" / "compare_kills.json").read_text(encoding="utf-8"))["kills"]
    assert [kill["victim"] for kill in kills] == ["comparison"] * 2 + ["vLLM"] * 2
    assert all(kill["differences"] == [] and kill["survivors"] == 0 for kill in kills)
    assert all(0 < kill["answers"] < 240 for kill in kills[2:])
    assert "4 of 4 kills led to the undisturbed report" in capfd.readouterr().out
    assert not (tmp_path / "bench" / "compare_kills").exists()


def test_survivors_of_a_kill_end_it_with_1(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(plan: comparison_kills.KillPlan) -> subprocess.Popen[bytes]:
        plan.folder.mkdir(parents=True)
        plan.report.write_text('{"predictions": []}')
        return subprocess.Popen(["true"])

    monkeypatch.setattr(comparison_kills.KillPlan, "start", start)
    monkeypatch.setattr(
        comparison_kills, "kill_comparisons", lambda *_: [comparison_kills.KillRecord("comparison", 1.0, 0, 1)]
    )
    monkeypatch.setattr(comparison_kills, "kill_servers", lambda *_: [])
    with pytest.raises(typer.Exit) as end:
        run_bench(tmp_path, model_folder)
    assert end.value.exit_code == 1
    assert (tmp_path / "bench" / "compare_kills" / "undisturbed" / "report.json").exists()  # to be looked at
