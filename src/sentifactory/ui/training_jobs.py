"""Runs one training at a time, as a child process that outlives the page.

The child is `sentifactory train` with a recipe that is written for it. It inherits the descriptor of a locked file and
thereby holds the lock until it ends in whatever way: no page on the same workspace starts another training meanwhile,
and no process with a reused id is taken for the training. Where the file system has no locks, the process of the
newest job is identified by its id and its recipe.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sentifactory.errors import SentiFactoryError
from sentifactory.models.complete_folder import list_checkpoints
from sentifactory.system.atomic import write_json, write_text
from sentifactory.system.file_lock import lock_file, open_lock, refuse_links
from sentifactory.system.json_text import read_json_object
from sentifactory.system.progress_file import PROGRESS_VARIABLE, read_failure, read_progress
from sentifactory.system.supervisor import has_argument
from sentifactory.training.run.checkpoints import read_marker
from sentifactory.training.run.run_card import read_card, read_now
from sentifactory.ui.error_sentences import PageError
from sentifactory.ui.page_words import WORDS
from sentifactory.ui.workspace import Workspace, list_newest

LOCK_NAME = ".training.lock"
JOB_NAME, RECIPE_NAME, LOG_NAME, PROGRESS_NAME = "job.json", "recipe.yaml", "train.log", "progress.json"
RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"
_LOCK_TIMEOUT_S = 2.0  # another page that checks for a running training holds the lock for a moment
_LOG_LINES = 8
_LOG_BYTES = 20_000  # of the end of a log
_STOP_TIMEOUT_S = 20.0  # for writing the run card; a stop after that kills


@dataclass(frozen=True, slots=True)
class Job:
    """A training that was started from the page.

    Attributes:
        facts: the content of job.json: name, data, recipe, output_dir, pid, started_at, stop_asked_at.
        state: `running`, `finished`, `stopped` or `failed`.
        card: the run card so far; {} before the first step.
        log: the last lines of the command's output.
        progress: what the command is doing, from `system.progress_file`; None where it has not said it yet.
        checkpoint: the step of the last complete checkpoint; None where there is none.
        failure: the error that the command ended with; None where it wrote none.
    """

    facts: dict[str, Any]
    state: str
    card: dict[str, Any]
    log: list[str]
    progress: dict[str, Any] | None = None
    checkpoint: int | None = None
    failure: SentiFactoryError | None = None

    @property
    def is_stopping(self) -> bool:
        """Whether it runs, and was asked to stop."""
        return self.state == RUNNING and self.facts.get("stop_asked_at") is not None


def start_job(workspace: Workspace, name: str, settings: Mapping[str, Any], facts: Mapping[str, str]) -> None:
    """Start a training.

    Args:
        workspace: of the page.
        name: of the job and of the model; must be free.
        settings: of the recipe; its output_dir is replaced.
        facts: data and recipe, which the page shows.

    Raises:
        ConfigError: when a training is running.
    """
    import yaml

    with _hold_lock(workspace) as descriptor:
        folder = workspace.jobs / name
        output_dir = workspace.models / name
        recipe = yaml.safe_dump({**settings, "output_dir": str(output_dir)}, allow_unicode=True, sort_keys=False)
        write_text(folder / RECIPE_NAME, recipe)
        _launch(folder, descriptor, {"name": name, **facts, "output_dir": str(output_dir)})


def resume_job(workspace: Workspace) -> None:
    """Restart the newest job where it did not finish; it resumes from its last complete checkpoint.

    Raises:
        ConfigError: when a training is running, or there is none to resume.
    """
    with _hold_lock(workspace) as descriptor:
        found = _find_newest(workspace)
        if found is None or _read_job(*found, is_held=False).state == FINISHED:
            raise PageError(*WORDS["nothing_to_resume"], code="no-training")
        folder, facts = found
        _launch(folder, descriptor, facts | {"stop_asked_at": None})


def _launch(folder: Path, descriptor: int, facts: dict[str, Any]) -> None:
    command = [sys.executable, "-m", "sentifactory.cli", "train", str(folder / RECIPE_NAME)]
    facts = {**facts, "pid": None, "started_at": read_now()}
    (folder / PROGRESS_NAME).unlink(missing_ok=True)
    write_json(folder / JOB_NAME, facts)  # from now on this is the newest job
    with open(folder / LOG_NAME, "ab", opener=refuse_links) as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(descriptor,),
            env=os.environ | {PROGRESS_VARIABLE: str(folder / PROGRESS_NAME)},
            preexec_fn=_restore_interrupts,
        )
    write_json(folder / JOB_NAME, {**facts, "pid": child.pid})
    threading.Thread(target=child.wait, daemon=True).start()  # leaves no zombie


def _restore_interrupts() -> None:
    # A page in the background of a script ignores SIGINT, and so would its child: it could not be stopped gracefully.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def stop_job(workspace: Workspace) -> None:
    """Interrupt the running training like Ctrl-C; a second stop after `_STOP_TIMEOUT_S` kills it.

    Raises:
        ConfigError: when none is running.
    """
    job = find_job(workspace)
    if job is None or job.state != RUNNING or job.facts["pid"] is None:
        raise PageError(*WORDS["nothing_to_stop"], code="no-training")
    folder = workspace.jobs / job.facts["name"]
    asked_at = job.facts.get("stop_asked_at")
    is_late = asked_at is not None and time.time() - asked_at > _STOP_TIMEOUT_S
    if asked_at is None:
        write_json(folder / JOB_NAME, job.facts | {"stop_asked_at": time.time()})
    with contextlib.suppress(ProcessLookupError):
        os.killpg(job.facts["pid"], signal.SIGKILL if is_late else signal.SIGINT)


def find_job(workspace: Workspace) -> Job | None:
    """Return the newest training, or None where there was none."""
    is_held = _is_locked(workspace)  # first: a training that ends after this has not yet written its card
    found = _find_newest(workspace)
    return None if found is None else _read_job(*found, is_held=is_held)


def _find_newest(workspace: Workspace) -> tuple[Path, dict[str, Any]] | None:
    """Return the folder and the facts of the newest job; None where there is none."""
    read = ((folder, _read_facts(folder)) for folder in list_newest(workspace.jobs, JOB_NAME))
    return next(((folder, facts) for folder, facts in read if facts), None)


def _read_facts(folder: Path) -> dict[str, Any]:
    """Return the facts of a job; {} where its file is broken, or has been removed."""
    facts = read_json_object(folder / JOB_NAME) or {}
    is_valid = all(isinstance(facts.get(name), str) for name in ("name", "output_dir", "started_at"))
    return facts if is_valid and isinstance(facts.get("pid"), int | None) else {}


def _read_job(folder: Path, facts: dict[str, Any], *, is_held: bool) -> Job:
    card = read_card(facts["output_dir"]) or {}
    is_current = str(card.get("finished_at") or "") >= facts["started_at"]  # not from before the job was resumed
    state = FAILED
    if is_held:
        state = RUNNING
    elif card.get("status") == "finished":
        state = FINISHED
    elif facts.get("stop_asked_at") is not None or (card.get("status") == "interrupted" and is_current):
        state = STOPPED
    progress = read_progress(folder / PROGRESS_NAME)
    log = [line for line in _read_end(folder / LOG_NAME).splitlines() if line.strip()]
    checkpoint = _find_checkpoint(Path(facts["output_dir"]))
    failure = read_failure(folder / PROGRESS_NAME)
    return Job(facts, state, card, log[-_LOG_LINES:], progress, checkpoint, failure)


def _read_end(file: Path) -> str:
    """Return the end of a text file; "" where there is none."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LOG_BYTES))
            return stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def _find_checkpoint(output_dir: Path) -> int | None:
    """Return the step of the last complete checkpoint; None where there is none, or it is being removed."""
    try:
        steps = [int(folder.name.partition("-")[2]) for folder in list_checkpoints(output_dir) if read_marker(folder)]
    except (OSError, ValueError):
        return None
    return max(steps, default=None)


@contextmanager
def _hold_lock(workspace: Workspace) -> Iterator[int]:
    """Yield the descriptor of the locked file; the lock lasts until every process that has it has ended.

    Raises:
        ConfigError: when a training holds it, or it is a link.
    """
    with open_lock(workspace.root / LOCK_NAME) as file:
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        while not _try_lock(workspace, file):
            if time.monotonic() > deadline:
                raise PageError(*WORDS["training_runs"], code="training-runs")
            time.sleep(0.05)
        yield file.fileno()


def _is_locked(workspace: Workspace) -> bool:
    with open_lock(workspace.root / LOCK_NAME) as file:
        return not _try_lock(workspace, file, is_shared=True)


def _try_lock(workspace: Workspace, file: IO[bytes], *, is_shared: bool = False) -> bool:
    try:
        return lock_file(file, workspace.root / LOCK_NAME, is_shared=is_shared) or not _has_process(workspace)
    except BlockingIOError:
        return False


def _has_process(workspace: Workspace) -> bool:
    """Return whether the process of the newest job is running on this machine."""
    if (found := _find_newest(workspace)) is None:
        return False
    folder, facts = found
    return has_argument(facts["pid"], str(folder / RECIPE_NAME))
