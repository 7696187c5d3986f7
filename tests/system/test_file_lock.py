"""File systems without locks: a sentence, and on without; nothing that may be another process's is removed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, NoReturn

import pytest

from sentifactory import cli
from sentifactory.corpus.dataset.dataset_info import register_datasets
from sentifactory.corpus.reading.hub_datasets import HubAddress, read_hub
from sentifactory.corpus.reading.read_result import ReadOptions
from sentifactory.engines.ask import PredictionJournal
from sentifactory.errors import EXIT_BAD_INPUT, ConfigError
from sentifactory.models import store
from sentifactory.records import Prediction, Review
from sentifactory.serving.labelling.resumable_output import ResumableOutput
from sentifactory.system import environments, file_lock
from sentifactory.system.atomic import replace_directory
from sentifactory.task.task import BINARY_SENTIMENT
from sentifactory.training.acceleration import frozen_layer_cache
from sentifactory.training.acceleration.cache_storage import MemoryStorage
from sentifactory.training.run.checkpoints import hold_output_folder
from sentifactory.ui import training_jobs
from sentifactory.ui.workspace import open_workspace


@pytest.fixture(autouse=True, params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    def refuse(file: int | IO[str], kind: int) -> NoReturn:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(file_lock, "_WARNED_FOLDERS", set())
    return int(request.param)


def count_notes(capsys: pytest.CaptureFixture[str]) -> int:
    return capsys.readouterr().err.count("no file locks")


def test_data_sets_are_registered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    register_datasets(tmp_path, "hotel", ["train"])
    register_datasets(tmp_path, "books", ["train"])
    assert set(json.loads((tmp_path / "dataset_info.json").read_text())) == {"hotel_train", "books_train"}
    assert count_notes(capsys) == 1, "once for each folder"


def test_a_folder_is_replaced_and_a_foreign_temporary_one_stays(tmp_path: Path) -> None:
    foreign = tmp_path / ".model.abc.part"
    foreign.mkdir()
    with replace_directory(tmp_path / "model") as folder:
        (folder / "weights").write_text("new")
    assert (tmp_path / "model" / "weights").read_text() == "new"
    assert foreign.is_dir()


def test_a_model_is_built_and_a_foreign_temporary_folder_stays(tmp_path: Path) -> None:
    foreign = tmp_path / ".model.abc.part"
    foreign.mkdir()
    with store._lock_folder(tmp_path / "model"):
        assert foreign.is_dir()


def test_a_comparison_keeps_its_answers(tmp_path: Path) -> None:
    for n_before in (0, 1):
        with PredictionJournal(tmp_path / "a.jsonl", "x", [Review("好")]) as journal:
            assert len(journal.answers) == n_before
            journal.begin_session(0.0)
            journal.keep(0, Prediction(1))


def test_labelling_training_and_set_up_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ResumableOutput(tmp_path / "a" / "out.csv", {}, b"text\n") as spool:
        spool.append("好\n".encode(), b"", 1, {})
        spool.complete()
    assert (tmp_path / "a" / "out.csv").read_text(encoding="utf-8") == "text\n好\n"
    with hold_output_folder(tmp_path / "b"):
        pass
    with environments.hold_lock(tmp_path):
        pass
    assert count_notes(capsys) == 3


def test_the_trunk_cache_that_runs_share_unasked_stays_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(frozen_layer_cache.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(frozen_layer_cache, "_SPARE_BYTES", 0)
    other = tmp_path / "trunk" / "other.trunk"
    other.parent.mkdir()
    other.write_bytes(b"x" * 100)
    storage, where = frozen_layer_cache.open_storage(lambda: "own", 50, 60)
    assert isinstance(storage, MemoryStorage)
    assert "no locks" in where
    assert other.exists(), "it may be in use"


def test_the_page_finds_its_training_by_its_process(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path / "space")
    folder = workspace.jobs / "mine"
    folder.mkdir(parents=True)
    recipe = folder / training_jobs.RECIPE_NAME
    program = "import time; print(flush=True); time.sleep(60)"
    sleeper = subprocess.Popen([sys.executable, "-c", program, recipe], stdout=subprocess.PIPE)
    assert sleeper.stdout is not None
    try:
        sleeper.stdout.readline()
        facts = {"name": "mine", "pid": sleeper.pid, "started_at": "2026", "output_dir": str(tmp_path / "out")}
        (folder / training_jobs.JOB_NAME).write_text(json.dumps(facts))
        job = training_jobs.find_job(workspace)
        assert job is not None
        assert job.state == training_jobs.RUNNING
        with pytest.raises(ConfigError, match="already running"):
            training_jobs.resume_job(workspace)
    finally:
        sleeper.kill()
        sleeper.communicate()
    job = training_jobs.find_job(workspace)
    assert job is not None
    assert job.state == training_jobs.FAILED


def test_a_librarys_own_lock_becomes_a_sentence(no_locks: int, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise OSError(no_locks, "No locks available")

    with pytest.raises(SystemExit) as ended:
        cli.run_guarded(fail)
    assert ended.value.code == EXIT_BAD_INPUT
    assert "HF_HOME" in capsys.readouterr().err


def test_so_does_that_of_the_library_that_loads_data_sets(
    tmp_path: Path, no_locks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.csv").write_text("label,text\n1,好\n", encoding="utf-8")

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(no_locks, "No locks available")

    import datasets

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(ConfigError) as refused:
        read_hub(HubAddress("hf", str(tmp_path)), BINARY_SENTIMENT, ReadOptions())
    assert "HF_HOME" in refused.value.next_step
