"""Two kills by SIGKILL, one of them while a checkpoint is written, and a full disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import training_kill_driver
from forked_commands import run_forked


@pytest.mark.slow
def test_killed_runs_and_a_full_disk_end_with_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    done = run_forked(training_kill_driver.__file__, tmp_path / "bench", folder=tmp_path, timeout_s=800)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert [strike["aim"] for strike in found["strikes"]] == ["any moment", "while saving"]
    assert all(strike["signal"] == "SIGKILL" for strike in found["strikes"])
    assert all(found["kept"].values()), found
    assert "| run-1 | while saving | SIGKILL |" in found["table"]
    if found["disk"]["status"] != "run":
        assert "full disk was survived" not in found["table"]
        pytest.skip(found["disk"]["status"])
    assert "The disk is full" in found["disk"]["message"]
    assert found["kept"]["a full disk was survived"]
