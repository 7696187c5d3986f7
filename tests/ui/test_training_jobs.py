"""A training is alone, outlives who started it, is found again by its files, and can be stopped and resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from ui_workshop import build_workshop

from sentifactory.errors import ConfigError
from sentifactory.ui import training_jobs
from sentifactory.ui.actions import PageActions
from sentifactory.ui.training_jobs import FAILED, JOB_NAME, LOG_NAME, RUNNING, STOPPED, Job, find_job
from sentifactory.ui.workspace import Workspace, open_workspace

PATIENCE_S = 240.0


def wait_for(workspace: Workspace, state: str, steps: int = 0) -> Job:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        job = find_job(workspace)
        assert job is not None
        # The card and the file of progress are written one after the other, the latter at most twice a second.
        done = min(int(job.card.get("steps") or 0), int((job.progress or {}).get("done") or 0)) if steps else 0
        if job.state == state and done >= steps:
            return job
        assert time.monotonic() < deadline, (job.state, job.log)
        assert job.state == RUNNING or state == RUNNING, (job.state, job.log)
        time.sleep(0.2)


@pytest.mark.slow
def test_a_training_is_alone_found_again_stopped_and_resumed(tmp_path: Path) -> None:
    workshop = build_workshop(tmp_path)
    workspace = open_workspace(tmp_path / "space")
    actions = PageActions(workspace, (workshop / "pretrained",), (workshop / "recipes",))
    name, report = actions.prepare(str(workshop / "my_reviews.csv"), "my_reviews.csv", "zh")
    assert name == "my_reviews"
    assert "my_reviews" in report
    assert str(workspace.root) not in report
    actions.start(name, "endless", "mine")
    try:
        # Another page on the same folder sees it, and may not start a second one.
        second = PageActions(open_workspace(tmp_path / "space"), actions.model_roots, actions.recipe_roots)
        with pytest.raises(ConfigError, match="already running"):
            second.start(name, "quick", "")
        job = wait_for(second.workspace, RUNNING, steps=8)
        assert job.progress is not None
        assert job.progress["total"] == job.card["max_steps"]
        assert [row for row in job.card["metrics"] if "loss" in row], "losses are there before the end"
        assert 'role="progressbar"' in second.show_progress()
        assert "ui/mine" not in second.find_models()
        second.stop()
        job = wait_for(workspace, STOPPED)
        assert job.card["status"] == "interrupted"
        actions.resume()
        job = find_job(workspace)
        assert job is not None
        assert job.state == RUNNING
        os.kill(job.facts["pid"], signal.SIGKILL)
        wait_for(workspace, FAILED)
    finally:
        if (job := find_job(workspace)) is not None and job.state == RUNNING:
            os.killpg(job.facts["pid"], signal.SIGKILL)
    assert not (Path.cwd() / "chosen").exists()


def test_a_job_that_is_removed_while_it_is_read_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = open_workspace(tmp_path / "space")
    for name, started_at in (("older", "2030-01-01"), ("newer", "2030-01-02")):
        facts = {"name": name, "output_dir": str(workspace.models / name), "started_at": started_at, "pid": None}
        (workspace.jobs / name).mkdir()
        (workspace.jobs / name / JOB_NAME).write_text(json.dumps(facts))
        (workspace.jobs / name / LOG_NAME).write_bytes(b"x" * 50_000 + "\n好\n".encode() + b"\xff\n")
    os.utime(workspace.jobs / "older" / JOB_NAME, (1, 1))
    job = find_job(workspace)
    assert job is not None
    assert (job.facts["name"], job.state, job.log[-2:]) == ("newer", FAILED, ["好", "\ufffd"])

    def remove(folder: str) -> None:
        shutil.rmtree(workspace.jobs / "newer", ignore_errors=True)

    with monkeypatch.context() as patch:
        patch.setattr(training_jobs, "read_card", remove)
        job = find_job(workspace)
    assert job is not None
    assert (job.facts["name"], job.log) == ("newer", [])
    job = find_job(workspace)
    assert job is not None
    assert job.facts["name"] == "older"
