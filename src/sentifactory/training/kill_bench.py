"""Kills training runs at random moments, continues each by the same command, and compares the weights at the end.

Every life of a run is a process of its own that executes the command line `sentifactory train`; it is forked from this
one, which has torch and LLaMA-Factory loaded, so that a life costs seconds. Half of the kills strike at any moment of
a run, loading and the last save included; the others wait for a checkpoint that is just being written. One more run
gets SIGTERM and Ctrl-C, and one writes to a disk that is too small until room is made.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentifactory.corpus.manifest import hash_file
from sentifactory.progress import show_progress
from sentifactory.training.checkpoints import list_checkpoints, read_marker
from sentifactory.training.forked_life import Life, mount_small_disk
from sentifactory.training.tiny_run import build_tiny_run
from sentifactory.training.trunk_cache import FOLDER_VARIABLE

ANY_MOMENT, SAVING = "any moment", "while saving"
UNDISTURBED, FULL_DISK = "undisturbed", "full-disk"
SAVE_STEPS = 3
_CONTINUED = re.compile(r"Continuing the run that was cut off, from .*checkpoint-(\d+) ")
_BEGUN = "Training: 0/"
# A save of the tiny model takes about as long.
_LONGEST_SAVE_S = 0.06


@dataclass
class Strike:
    """A life that was ended from outside.

    Attributes:
        run: which run; one run may be struck many times.
        aim: when it was to be struck.
        signal: name of the signal.
        after_s: seconds from the life's beginning.
        reached_step: the last step that had been logged.
        cut_off: checkpoints that were being written.
        continued_step: where the next life that got so far began; 0 is the beginning.
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
        """Steps that were computed again."""
        return max(0, self.reached_step - self.continued_step)


@dataclass
class Ending:
    """A run that came to its end.

    Attributes:
        run: which one.
        code: exit code of the last life.
        is_same: whether its weights are those of the undisturbed run, to the last bit.
    """

    run: str
    code: int
    is_same: bool


class Arena:
    """Where the runs live and die.

    Args:
        folder: an empty folder.
        seed: of model, data and strikes.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.strikes: list[Strike] = []
        self.endings: list[Ending] = []
        self.words = ""  # of the newest life
        self._source = random.Random(seed)  # noqa: S311  (no secret depends on it)
        self._open: list[Strike] = []
        os.environ[FOLDER_VARIABLE] = str(folder / "cache")
        Life(lambda: build_tiny_run(folder, save_steps=SAVE_STEPS, seed=seed), folder / "log.txt").wait()
        start_s = time.monotonic()
        code = self.live(UNDISTURBED)
        self.life_s = time.monotonic() - start_s
        if code != 0:
            raise RuntimeError(f"The undisturbed run ended with {code}: {self.words[-2000:]}")

    def live(self, run: str, strike: Strike | None = None) -> int | None:
        """Let a run live once more; return the exit code, or None where the strike ended it."""
        output = self.folder / run
        words = ["train", str(self.folder / "tiny.yaml"), f"output_dir={output}"]
        life = Life(lambda: _execute(words), self.folder / "log.txt")
        code = life.wait() if strike is None else self._strike(life, strike, output)
        self.words = life.read_words()
        found = _CONTINUED.search(self.words)
        if found or _BEGUN in self.words:
            for before in self._open:
                before.continued_step = int(found[1]) if found else 0
            self._open = []
        if strike is not None and code is None:
            self.strikes.append(strike)
            self._open.append(strike)
        if code is not None and run not in (UNDISTURBED, FULL_DISK):
            self.endings.append(Ending(run, code, code == 0 and self.is_same(run)))
        return code

    def is_same(self, run: str) -> bool:
        """Return whether a run that ended has the weights of the undisturbed one, to the last bit."""
        ours, expected = (self.folder / name / "model.safetensors" for name in (run, UNDISTURBED))
        return ours.is_file() and hash_file(ours) == hash_file(expected)

    def _strike(self, life: Life, strike: Strike, output: Path) -> int | None:
        """Send a signal at the right moment; return the exit code of a life that had ended by itself, else None."""
        start_s = time.monotonic()
        wait_s = self._source.uniform(0, self.life_s)
        if strike.aim == SAVING:
            if (code := _wait_for_save(life, output, self._source.randrange(1, 4))) is not None:
                return code
            wait_s = self._source.uniform(0, _LONGEST_SAVE_S)
        until_s = time.monotonic() + wait_s
        while time.monotonic() < until_s:
            if (code := life.poll()) is not None:
                return code
            time.sleep(0.001)
        life.send(signal.Signals[strike.signal])
        strike.after_s = round(time.monotonic() - start_s, 3)
        code = life.wait()
        strike.cut_off = [folder.name for folder in list_checkpoints(output) if not read_marker(folder)]
        strike.reached_step = read_step(output)
        number = signal.Signals[strike.signal]
        return None if code in (-number, 128 + number) else code


def _execute(words: list[str]) -> None:
    from sentifactory.cli import build_app, run_guarded

    run_guarded(lambda: build_app()(words))


def _wait_for_save(life: Life, output: Path, number: int) -> int | None:
    """Wait until a life begins to write its `number`th checkpoint; return the exit code where it ends before."""
    seen = {folder.name for folder in list_checkpoints(output)}
    while (code := life.poll()) is None:
        for folder in list_checkpoints(output):
            if folder.name not in seen:
                seen.add(folder.name)
                number -= 1
        if number <= 0:
            return None
        time.sleep(0.0005)
    return code


def read_step(output: Path) -> int:
    """Return the last step that a run has logged."""
    try:
        lines = (output / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
        return int(json.loads(lines[-1])["current_steps"])
    except (OSError, ValueError, IndexError, KeyError, RecursionError):
        return 0


def kill_runs(arena: Arena, kills: int) -> None:
    """Kill until there were as many kills; a run that ends by itself is compared, and another one begins."""
    number = 1
    with show_progress("Killing training runs", kills, "kills") as progress:
        while (done := len(arena.strikes)) < kills:
            run = f"run-{number}"
            code = arena.live(run, Strike(run, (ANY_MOMENT, SAVING)[done % 2], "SIGKILL"))
            if code is None:
                progress.advance()
            elif code == 0:
                number += 1
            else:
                raise RuntimeError(f"{run} ended with {code}: {arena.words[-2000:]}")
    if not arena.endings or arena.endings[-1].run != f"run-{number}":
        arena.live(f"run-{number}")


def signal_run(arena: Arena) -> None:
    """Send SIGTERM, and Ctrl-C to the next life of the same run, each when a checkpoint begins; then let it end."""
    for name in ("SIGTERM", "SIGINT"):
        arena.live("signals", Strike("signals", SAVING, name))
    if arena.endings[-1].run != "signals":
        arena.live("signals")


def fill_disk(arena: Arena) -> dict[str, Any]:
    """Let a run write to a small disk until no room is left, make room, and let the same command go on."""
    one = next((arena.folder / UNDISTURBED).glob("checkpoint-*"))
    size = sum(file.stat().st_size for file in one.iterdir())
    disk = arena.folder / FULL_DISK
    with mount_small_disk(disk, 8 * size) as problem:
        if problem:
            return {"status": f"not run: {problem}"}
        filler = disk / "filler"
        # There is room for one checkpoint and a half.
        filler.write_bytes(bytes(13 * size // 2))
        refused = arena.live(FULL_DISK)
        told = next((line for line in arena.words.splitlines() if line.startswith("Error:")), "")
        whole = [folder.name for folder in list_checkpoints(disk) if read_marker(folder)]
        filler.unlink()
        code = arena.live(FULL_DISK)
        found = _CONTINUED.search(arena.words)
        return {
            "status": "run", "exit_code": refused, "message": told, "whole_checkpoints": whole,
            "continued_step": int(found[1]) if found else 0, "exit_code_with_room": code,
            "is_same": code == 0 and arena.is_same(FULL_DISK),
        }  # fmt: skip
