"""Kills training runs at random moments, continues each with the same command, and compares the final weights.

Every attempt is a process that executes the command line `sentifactory train`, forked from this one, which has torch
and LLaMA-Factory loaded, so that an attempt takes seconds. Half of the kills occur at any moment of a run, including
loading and the last save; the others while a checkpoint is being written. One more run gets SIGTERM and Ctrl-C, and
one writes to a disk that is too small until space is freed.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentifactory.models.complete_folder import list_checkpoints
from sentifactory.system.fingerprint import hash_file
from sentifactory.system.json_text import parse_json
from sentifactory.system.progress import show_progress
from sentifactory.training.acceleration.frozen_layer_cache import FOLDER_VARIABLE
from sentifactory.training.run.checkpoints import read_marker
from tools.reliability.forked_process import ForkedProcess, mount_small_disk
from tools.reliability.tiny_recipe import build_tiny_run

ANY_MOMENT, SAVING = "any moment", "while saving"
UNDISTURBED, FULL_DISK = "undisturbed", "full-disk"
SAVE_STEPS = 3
_CONTINUED = re.compile(r"Continuing the interrupted run from .*checkpoint-(\d+) ")
_BEGUN = "Training: 0/"
# About the time of one save of the tiny model.
SAVE_S = 0.06


@dataclass
class Kill:
    """An attempt that was ended by a signal.

    Attributes:
        run: name; a run may be killed many times.
        aim: intended moment.
        signal: name of the signal.
        after_s: seconds since the start of the attempt.
        reached_step: last logged step.
        cut_off: checkpoints that were incomplete.
        continued_step: step from which the next attempt continued; 0: from the start.
    """

    run: str
    aim: str
    signal: str
    after_s: float = 0.0
    reached_step: int = 0
    cut_off: list[str] = field(default_factory=list)
    continued_step: int = 0

    @property
    def lost_steps(self) -> int:
        """Number of steps computed again."""
        return max(0, self.reached_step - self.continued_step)


@dataclass
class FinishedRun:
    """A run that has finished.

    Attributes:
        run: name.
        code: exit code of the last attempt.
        is_same: whether its weights are bit-identical to those of the undisturbed run.
    """

    run: str
    code: int
    is_same: bool


def find_continued_step(log: str) -> int | None:
    """Return the step from which an attempt continued, 0 for the start, or None where its training did not begin."""
    if found := _CONTINUED.search(log):
        return int(found[1])
    return 0 if _BEGUN in log else None


def has_same_weights(folder: Path, run: str) -> bool:
    """Return whether the weights of a finished run are bit-identical to those of the undisturbed one."""
    ours, expected = (folder / name / "model.safetensors" for name in (run, UNDISTURBED))
    return ours.is_file() and hash_file(ours) == hash_file(expected)


class KillBench:
    """Starts, kills and compares runs.

    Args:
        folder: an empty folder.
        seed: of model, data and kills.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.kills: list[Kill] = []
        self.finished_runs: list[FinishedRun] = []
        self.log_text = ""  # of the latest attempt
        self._source = random.Random(seed)  # noqa: S311  (no secret depends on it)
        self._open: list[Kill] = []
        os.environ[FOLDER_VARIABLE] = str(folder / "cache")
        ForkedProcess(lambda: build_tiny_run(folder, save_steps=SAVE_STEPS, seed=seed), folder / "log.txt").wait()
        start_s = time.monotonic()
        code = self.run_once(UNDISTURBED)
        self.undisturbed_s = time.monotonic() - start_s
        if code != 0:
            raise RuntimeError(f"The undisturbed run ended with {code}: {self.log_text[-2000:]}")

    def run_once(self, run: str, kill: Kill | None = None) -> int | None:
        """Start or continue a run once; return the exit code, or None where the kill ended it."""
        output = self.folder / run
        arguments = ["train", str(self.folder / "tiny.yaml"), f"output_dir={output}"]
        process = ForkedProcess(lambda: _execute(arguments), self.folder / "log.txt")
        code = process.wait() if kill is None else self._kill(process, kill, output)
        self.log_text = process.read_output()
        if (step := find_continued_step(self.log_text)) is not None:
            for before in self._open:
                before.continued_step = step
            self._open = []
        if kill is not None and code is None:
            self.kills.append(kill)
            self._open.append(kill)
        if code is not None and run not in (UNDISTURBED, FULL_DISK):
            self.finished_runs.append(FinishedRun(run, code, code == 0 and has_same_weights(self.folder, run)))
        return code

    def _kill(self, process: ForkedProcess, kill: Kill, output: Path) -> int | None:
        """Send the signal at the right moment; return the exit code of a process that ended by itself, or None."""
        start_s = time.monotonic()
        wait_s = self._source.uniform(0, self.undisturbed_s)
        if kill.aim == SAVING:
            if (code := _wait_for_save(process, output, self._source.randrange(1, 4))) is not None:
                return code
            wait_s = self._source.uniform(0, SAVE_S)
        until_s = time.monotonic() + wait_s
        while time.monotonic() < until_s:
            if (code := process.poll()) is not None:
                return code
            time.sleep(0.001)
        process.send(signal.Signals[kill.signal])
        kill.after_s = round(time.monotonic() - start_s, 3)
        code = process.wait()
        kill.cut_off = [folder.name for folder in list_checkpoints(output) if not read_marker(folder)]
        kill.reached_step = read_step(output)
        number = signal.Signals[kill.signal]
        return None if code in (-number, 128 + number) else code


def _execute(arguments: list[str]) -> None:
    from sentifactory.cli import build_app, run_guarded

    run_guarded(lambda: build_app()(arguments))


def _wait_for_save(process: ForkedProcess, output: Path, number: int) -> int | None:
    """Wait until a process begins to write its `number`th checkpoint; return the exit code where it ends before."""
    seen = {folder.name for folder in list_checkpoints(output)}
    while (code := process.poll()) is None:
        for folder in list_checkpoints(output):
            if folder.name not in seen:
                seen.add(folder.name)
                number -= 1
        if number <= 0:
            return None
        time.sleep(0.0005)
    return code


def read_step(output: Path) -> int:
    """Return the last logged step of a run."""
    try:
        lines = (output / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
        return int(parse_json(lines[-1])["current_steps"])
    except (OSError, ValueError, IndexError, KeyError):
        return 0


def kill_runs(bench: KillBench, kills: int) -> None:
    """Kill runs until the number of kills is reached; a run that finishes is compared, and another one starts."""
    number = 1
    with show_progress("Killing training runs", kills, "kills") as progress:
        while (done := len(bench.kills)) < kills:
            run = f"run-{number}"
            code = bench.run_once(run, Kill(run, (ANY_MOMENT, SAVING)[done % 2], "SIGKILL"))
            if code is None:
                progress.advance()
            elif code == 0:
                number += 1
            else:
                raise RuntimeError(f"{run} ended with {code}: {bench.log_text[-2000:]}")
    if not bench.finished_runs or bench.finished_runs[-1].run != f"run-{number}":
        bench.run_once(f"run-{number}")


def signal_run(bench: KillBench) -> None:
    """Send SIGTERM to a run, and Ctrl-C to its continuation, each while saving; then let it finish."""
    for name in ("SIGTERM", "SIGINT"):
        bench.run_once("signals", Kill("signals", SAVING, name))
    if bench.finished_runs[-1].run != "signals":
        bench.run_once("signals")


def fill_disk(bench: KillBench) -> dict[str, Any]:
    """Let a run fill a small disk, free space, and continue with the same command."""
    one = next((bench.folder / UNDISTURBED).glob("checkpoint-*"))
    size = sum(file.stat().st_size for file in one.iterdir())
    disk = bench.folder / FULL_DISK
    with mount_small_disk(disk, 8 * size) as problem:
        if problem:
            return {"status": f"not run: {problem}"}
        filler = disk / "filler"
        # Leaves space for one and a half checkpoints.
        filler.write_bytes(bytes(13 * size // 2))
        refused = bench.run_once(FULL_DISK)
        message = next((line for line in bench.log_text.splitlines() if line.startswith("Error:")), "")
        complete = [folder.name for folder in list_checkpoints(disk) if read_marker(folder)]
        filler.unlink()
        code = bench.run_once(FULL_DISK)
        found = _CONTINUED.search(bench.log_text)
        return {
            "status": "run", "exit_code": refused, "message": message, "whole_checkpoints": complete,
            "continued_step": int(found[1]) if found else 0, "exit_code_with_room": code,
            "is_same": code == 0 and has_same_weights(bench.folder, FULL_DISK),
        }  # fmt: skip
