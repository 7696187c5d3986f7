"""Kills trainings of two processes, continues each with the same command, and compares the final weights.

Every attempt is `sentifactory train --processes 2` on the CPU (gloo). The kills (SIGKILL) alternate between one
process and all of them, the launcher included, and between any moment of the training and the writing of a checkpoint.
After each kill, the command and all its processes must have ended within `ENDS_WITHIN_S`. Not covered: kills while the
libraries are loaded, which is most of an attempt here.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from sentifactory.cli import run_script
from sentifactory.models.complete_folder import list_checkpoints
from sentifactory.system.atomic import write_json, write_text
from sentifactory.system.progress import show_progress
from sentifactory.training.acceleration.frozen_layer_cache import FOLDER_VARIABLE
from sentifactory.training.processes.launch_ranks import GRACE_S
from sentifactory.training.run.checkpoints import read_marker
from tools.reliability.tiny_recipe import build_tiny_run
from tools.reliability.training_kills import (
    ANY_MOMENT,
    SAVE_S,
    SAVING,
    UNDISTURBED,
    FinishedRun,
    find_continued_step,
    has_same_weights,
    read_step,
)
from tools.reliability.training_kills_report import list_promises, list_runs

PROCESSES = 2
SAVE_STEPS = 10
# The launcher waits this long before it kills what does not end by itself; the rest is for the processes to exit.
ENDS_WITHIN_S = GRACE_S + 15
ONE, ALL = "one process", "all processes"
PLAN = ((ONE, ANY_MOMENT), (ALL, SAVING), (ONE, SAVING), (ALL, ANY_MOMENT))
_EPOCHS = 40


@dataclass
class ProcessKill:
    """An attempt that was killed.

    Attributes:
        run: name; a run may be killed many times.
        victims: one process, or all of them.
        aim: intended moment.
        after_s: seconds since the training began or was continued.
        ended_s: seconds from the kill to the end of the last process.
        survivors: processes that had not ended after `ENDS_WITHIN_S`.
        exit_code: of the command.
        cut_off: checkpoints that were incomplete.
        reached_step: last logged step.
        continued_step: step from which the next attempt continued; 0: from the start.
    """

    run: str
    victims: str
    aim: str
    after_s: float = 0.0
    ended_s: float = 0.0
    survivors: int = 0
    exit_code: int | None = None
    cut_off: list[str] = field(default_factory=list)
    reached_step: int = 0
    continued_step: int = 0


class ProcessKillBench:
    """Starts, kills and compares runs.

    Args:
        folder: an empty folder.
        seed: of model, data and kills.
        epochs: of each run.
    """

    def __init__(self, folder: Path, seed: int, *, epochs: int = _EPOCHS) -> None:
        self.folder = folder
        self.kills: list[ProcessKill] = []
        self.finished_runs: list[FinishedRun] = []
        self._source = random.Random(seed)  # noqa: S311  (no secret depends on it)
        self._open: list[ProcessKill] = []
        self._epochs = epochs
        self._log = folder / "log.txt"
        self.training_s = 0.0
        self.last_step = 0
        build_tiny_run(folder, save_steps=SAVE_STEPS, seed=seed)
        if (code := self.run_once(UNDISTURBED)) != 0:
            raise RuntimeError(f"The undisturbed run ended with {code}: {self.read_log()[-2000:]}")

    def read_log(self) -> str:
        """Return what the latest attempt has written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def run_once(self, run: str, kill: ProcessKill | None = None) -> int | None:
        """Start or continue a run once; return the exit code, or None where the kill ended it."""
        output = self.folder / run
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", FOLDER_VARIABLE: str(self.folder / "cache"),
        }  # fmt: skip
        words = [
            "train", str(self.folder / "tiny.yaml"), f"output_dir={output}", f"num_train_epochs={self._epochs}",
            "--processes", str(PROCESSES),
        ]  # fmt: skip
        command = [sys.executable, "-m", "sentifactory.cli", *words]
        with self._log.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        is_killed = self._wait_for_training(process) and kill is not None and self._kill(process, kill, output)
        begun_s = time.monotonic()
        code = process.wait()
        if run == UNDISTURBED:
            self.training_s = time.monotonic() - begun_s
            self.last_step = read_step(output)
        if (step := find_continued_step(self.read_log())) is not None:
            for before in self._open:
                before.continued_step = step
            self._open = []
        if kill is not None and is_killed:
            self.kills.append(kill)
            self._open.append(kill)
            return None
        if run != UNDISTURBED:
            self.finished_runs.append(FinishedRun(run, code, code == 0 and has_same_weights(self.folder, run)))
        return code

    def _wait_for_training(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait until the first step is computed; return False where the process ends before."""
        while process.poll() is None:
            if re.search(r"Training: \d+/", self.read_log()):
                return True
            time.sleep(0.02)
        return False

    def _kill(self, process: subprocess.Popen[bytes], kill: ProcessKill, output: Path) -> bool:
        """Kill at the intended moment, and wait for the end; return False where the run had ended before."""
        start_s = time.monotonic()
        wait_s = self._source.uniform(0, self.training_s)
        if kill.aim == SAVING:
            seen = {folder.name for folder in list_checkpoints(output)}
            while process.poll() is None and {folder.name for folder in list_checkpoints(output)} <= seen:
                time.sleep(0.0005)
            start_save_s = time.monotonic()
            wait_s = start_save_s - start_s + self._source.uniform(0, SAVE_S)
        while process.poll() is None and time.monotonic() - start_s < wait_s:
            time.sleep(0.001)
        try:
            launcher = psutil.Process(process.pid)
            ranks, family = launcher.children(), [launcher, *launcher.children(recursive=True)]
        except psutil.NoSuchProcess:
            return False
        if process.poll() is not None or len(ranks) < PROCESSES:
            return False  # it is ending by itself
        for victim in family if kill.victims == ALL else [self._source.choice(ranks)]:
            with suppress(psutil.NoSuchProcess):
                victim.kill()
        killed_s = time.monotonic()
        kill.after_s = round(killed_s - start_s, 3)
        with suppress(subprocess.TimeoutExpired):
            kill.exit_code = process.wait(timeout=ENDS_WITHIN_S)
        _, alive = psutil.wait_procs(family, timeout=max(0.0, killed_s + ENDS_WITHIN_S - time.monotonic()))
        kill.ended_s, kill.survivors = round(time.monotonic() - killed_s, 2), len(alive)
        for one in alive:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        kill.cut_off = [folder.name for folder in list_checkpoints(output) if not read_marker(folder)]
        kill.reached_step = read_step(output)
        return kill.exit_code != 0


def kill_runs(bench: ProcessKillBench, kills: int) -> None:
    """Kill runs until the number of kills is reached; a run that finishes is compared, and another one starts.

    Raises:
        RuntimeError: when an attempt fails for another reason.
    """
    number = 1
    with show_progress("Killing trainings of several processes", kills, "kills") as progress:
        while (done := len(bench.kills)) < kills:
            run = f"run-{number}"
            code = bench.run_once(run, ProcessKill(run, *PLAN[done % len(PLAN)]))
            if code is None:
                progress.advance()
            elif code == 0:
                number += 1
            else:
                raise RuntimeError(f"{run} ended with {code}: {bench.read_log()[-2000:]}")
    bench.run_once(f"run-{number}")


def check_promises(bench: ProcessKillBench) -> dict[str, bool]:
    """Return whether each promise was kept."""
    return {
        f"every process had ended within {ENDS_WITHIN_S} s of the kill": all(not one.survivors for one in bench.kills),
        "the same command continued every run, and ended with exit code 0": all(
            one.code == 0 for one in bench.finished_runs
        ),
        "the weights are those of the undisturbed run, bit for bit": all(one.is_same for one in bench.finished_runs),
        # A kill after the last step may come when the run is finished, which the same command then starts over.
        f"before the last step, a kill cost at most {SAVE_STEPS} steps (one interval between checkpoints)": all(
            one.reached_step - one.continued_step <= SAVE_STEPS
            for one in bench.kills
            if one.reached_step < bench.last_step
        ),
    }


def format_table(bench: ProcessKillBench, kept: dict[str, bool]) -> str:
    """Return the tables in Markdown."""
    lines = [
        f"{len(bench.kills)} kills by SIGKILL of trainings in {PROCESSES} processes on the CPU (gloo), in "
        f"{len({one.run for one in bench.kills})} runs, each of which trains for {bench.training_s:.1f} s when "
        f"undisturbed; a checkpoint every {SAVE_STEPS} steps.",
        "",
        *list_promises(kept),
        "",
        "| run | killed | moment | after | all ended after | exit code | cut off | step reached | continued from |",
        "|---|---|---|---:|---:|---:|---|---:|---:|",
    ]
    lines += [
        f"| {one.run} | {one.victims} | {one.aim} | {one.after_s:.2f} s | {one.ended_s:.1f} s | {one.exit_code} | "
        f"{', '.join(one.cut_off) or '-'} | {one.reached_step} | {one.continued_step} |"
        for one in bench.kills
    ]
    return "\n".join([*lines, "", *list_runs(bench.finished_runs)])


def run_process_kills(kills: int, seed: int, output_dir: Path, *, epochs: int = _EPOCHS) -> dict[str, Any]:
    """Run the bench, write `process_kills.json` and `process_kills.md`, and return the figures."""
    with tempfile.TemporaryDirectory(prefix="sentifactory-kills-") as name:
        bench = ProcessKillBench(Path(name), seed, epochs=epochs)
        kill_runs(bench, kills)
    kept = check_promises(bench)
    figures = {
        "processes": PROCESSES, "seed": seed, "save_steps": SAVE_STEPS, "training_s": round(bench.training_s, 2),
        "ends_within_s": ENDS_WITHIN_S, "promises_kept": kept, "kills": [asdict(one) for one in bench.kills],
        "runs": [asdict(one) for one in bench.finished_runs],
    }  # fmt: skip
    write_json(output_dir / "process_kills.json", figures)
    write_text(output_dir / "process_kills.md", format_table(bench, kept) + "\n")
    return figures


def bench_process_kills(
    kills: Annotated[int, typer.Option(min=1, help="Kills by SIGKILL.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of model, data and kills.")] = 0,
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Output folder.")] = Path("saves/bench"),
) -> None:
    """Kill trainings of two processes, continue them with the same command, and compare the weights at the end.

    The exit code is 1 if a promise was not kept.
    """
    figures = run_process_kills(kills, seed, output_dir)
    typer.echo((output_dir / "process_kills.md").read_text(encoding="utf-8"))
    if not all(figures["promises_kept"].values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    run_script(bench_process_kills)
