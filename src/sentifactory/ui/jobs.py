"""One training at a time, as a child process that outlives the page and is found again by its files.

The child is `sentifactory train` on a recipe that was written for it. It inherits the descriptor of a locked file and
holds the lock as long as it lives, in whatever way it ends: so no page, and no second page on the same workspace,
starts another one meanwhile, and nobody takes a foreign process that got an old number for the training. Where the
file system has no locks, the process of the newest job is looked for by its number and its recipe.
"""

from __future__ import annotations

import contextlib
import json
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
from typing import Any

from sentifactory.atomic import write_json, write_text
from sentifactory.errors import ConfigError
from sentifactory.file_lock import lock_file, refuse_links
from sentifactory.training.run_card import read_card, read_now
from sentifactory.ui.workspace import Workspace

LOCK_NAME = ".training.lock"
JOB_NAME, RECIPE_NAME, LOG_NAME = "job.json", "recipe.yaml", "train.log"
RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"
_LOCK_PATIENCE_S = 2.0  # whoever looks whether a training runs holds the lock for a moment
_LOG_LINES = 8
_STOP_PATIENCE_S = 20.0  # for writing the run card; whoever asks again after it, kills


@dataclass(frozen=True, slots=True)
class Job:
    """A training that was started from the page.

    Attributes:
        facts: as they stand in job.json: name, data, recipe, output_dir, pid, started_at, stop_asked_at.
        state: `running`, `finished`, `stopped` or `failed`.
        card: the run card so far; {} before the first step.
        log: the last lines that the command wrote.
    """

    facts: dict[str, Any]
    state: str
    card: dict[str, Any]
    log: list[str]


def start_job(workspace: Workspace, name: str, settings: Mapping[str, Any], facts: Mapping[str, str]) -> None:
    """Start a training.

    Args:
        workspace: of the page.
        name: of the job and of the model; not taken.
        settings: of the recipe; its output_dir is chosen here.
        facts: what the page shows besides: data and recipe.

    Raises:
        ConfigError: when a training runs already.
    """
    import yaml

    with _hold_lock(workspace) as descriptor:
        folder = workspace.jobs / name
        output_dir = workspace.models / name
        recipe = yaml.safe_dump({**settings, "output_dir": str(output_dir)}, allow_unicode=True, sort_keys=False)
        write_text(folder / RECIPE_NAME, recipe)
        _launch(folder, descriptor, {"name": name, **facts, "output_dir": str(output_dir)})


def resume_job(workspace: Workspace) -> None:
    """Start the newest job again, where it did not finish; it goes on from its last whole checkpoint.

    Raises:
        ConfigError: when a training runs, or there is none to go on with.
    """
    with _hold_lock(workspace) as descriptor:
        folder = _find_newest(workspace)
        if folder is None or _read_job(folder, is_held=False).state == FINISHED:
            raise ConfigError("There is no training to go on with", next_step="start one")
        _launch(folder, descriptor, _read_facts(folder) | {"stop_asked_at": None})


def _launch(folder: Path, descriptor: int, facts: dict[str, Any]) -> None:
    command = [sys.executable, "-m", "sentifactory.cli", "train", str(folder / RECIPE_NAME)]
    facts = {**facts, "pid": None, "started_at": read_now()}
    write_json(folder / JOB_NAME, facts)  # from here on this is the newest job
    with open(folder / LOG_NAME, "ab", opener=refuse_links) as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(descriptor,),
            preexec_fn=_listen_to_interrupts,
        )
    write_json(folder / JOB_NAME, {**facts, "pid": child.pid})
    threading.Thread(target=child.wait, daemon=True).start()  # so that no zombie stays


def _listen_to_interrupts() -> None:
    # A page in the background of a script ignores Ctrl-C, and its child would too: it could not be stopped gently.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def stop_job(workspace: Workspace) -> None:
    """Ask the running training to end, as Ctrl-C does; asked again after a while, it is killed.

    Raises:
        ConfigError: when none runs.
    """
    job = find_job(workspace)
    if job is None or job.state != RUNNING or job.facts["pid"] is None:
        raise ConfigError("No training is running", next_step="start one")
    folder = workspace.jobs / job.facts["name"]
    asked_at = job.facts.get("stop_asked_at")
    is_late = asked_at is not None and time.time() - asked_at > _STOP_PATIENCE_S
    if asked_at is None:
        write_json(folder / JOB_NAME, job.facts | {"stop_asked_at": time.time()})
    with contextlib.suppress(ProcessLookupError):
        os.killpg(job.facts["pid"], signal.SIGKILL if is_late else signal.SIGINT)


def find_job(workspace: Workspace) -> Job | None:
    """Return the newest training, or None where there was none."""
    is_held = _is_held(workspace)  # first: what ends meanwhile has written its card by then
    folder = _find_newest(workspace)
    return None if folder is None else _read_job(folder, is_held=is_held)


def _find_newest(workspace: Workspace) -> Path | None:
    files = sorted(workspace.jobs.glob(f"*/{JOB_NAME}"), key=lambda file: file.stat().st_mtime_ns)
    return files[-1].parent if files else None


def _read_facts(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / JOB_NAME).read_text(encoding="utf-8"))
    return facts


def _read_job(folder: Path, *, is_held: bool) -> Job:
    facts = _read_facts(folder)
    card = read_card(facts["output_dir"]) or {}
    is_of_this_life = (card.get("finished_at") or "") >= facts["started_at"]  # and not of the one before it went on
    state = FAILED
    if is_held:
        state = RUNNING
    elif card.get("status") == "finished":
        state = FINISHED
    elif facts.get("stop_asked_at") is not None or (card.get("status") == "interrupted" and is_of_this_life):
        state = STOPPED
    log_file = folder / LOG_NAME
    log = log_file.read_text(encoding="utf-8", errors="replace").splitlines() if log_file.exists() else []
    return Job(facts, state, card, [line for line in log if line.strip()][-_LOG_LINES:])


@contextmanager
def _hold_lock(workspace: Workspace) -> Iterator[int]:
    """Give the descriptor of the locked file; the lock lasts until every process that has it is gone.

    Raises:
        ConfigError: when a training holds it.
    """
    descriptor = os.open(workspace.root / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        deadline = time.monotonic() + _LOCK_PATIENCE_S
        while not _try_lock(workspace, descriptor):
            if time.monotonic() > deadline:
                raise ConfigError("A training is running already", next_step="wait for its end, or stop it")
            time.sleep(0.05)
        yield descriptor
    finally:
        os.close(descriptor)


def _is_held(workspace: Workspace) -> bool:
    descriptor = os.open(workspace.root / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        return not _try_lock(workspace, descriptor, is_shared=True)
    finally:
        os.close(descriptor)


def _try_lock(workspace: Workspace, descriptor: int, *, is_shared: bool = False) -> bool:
    try:
        return lock_file(descriptor, workspace.root / LOCK_NAME, is_shared=is_shared) or not _has_process(workspace)
    except BlockingIOError:
        return False


def _has_process(workspace: Workspace) -> bool:
    """Whether the process of the newest job lives on this machine."""
    folder = _find_newest(workspace)
    pid = None if folder is None else _read_facts(folder)["pid"]
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return folder is not None and os.fsencode(folder / RECIPE_NAME) in words
