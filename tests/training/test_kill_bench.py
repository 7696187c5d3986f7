"""Two kills by SIGKILL, one of them while a checkpoint is written, and a full disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import kill_driver
import pytest


@pytest.mark.slow
def test_killed_runs_and_a_full_disk_end_with_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "arena").mkdir()
    command = [sys.executable, str(Path(kill_driver.__file__)), str(tmp_path / "arena")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert [strike["aim"] for strike in found["strikes"]] == ["any moment", "while saving"]
    assert all(strike["signal"] == "SIGKILL" for strike in found["strikes"])
    assert all(found["kept"].values()), found
    assert "| run-1 | while saving | SIGKILL |" in found["table"]
    if found["disk"]["status"] != "run":
        assert "full disk was survived" not in found["table"]
        pytest.skip(found["disk"]["status"])
    assert "No room is left on the disk" in found["disk"]["message"]
    assert found["kept"]["a full disk was survived"]
