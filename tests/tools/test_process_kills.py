"""The bench that kills trainings of several processes, with one kill of each kind of victims."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentifactory.system.json_text import read_json
from tools.reliability.process_kills import ALL, ONE, run_process_kills


@pytest.mark.slow
def test_killed_processes_end_in_time_and_the_run_continues(tmp_path: Path) -> None:
    figures = run_process_kills(2, seed=0, output_dir=tmp_path)
    assert all(figures["promises_kept"].values()), figures
    assert [one["victims"] for one in figures["kills"]] == [ONE, ALL]
    assert all(one["exit_code"] != 0 and one["ended_s"] <= figures["ends_within_s"] for one in figures["kills"])
    assert all(one["is_same"] for one in figures["runs"])
    assert read_json(tmp_path / "process_kills.json") == figures
    assert (tmp_path / "process_kills.md").read_text(encoding="utf-8").count("| yes |") == 4 + len(figures["runs"])
