"""Broken files for every command that reads files: none may end in a traceback, hang, or leave half of an output.

Purpose:       does a broken file end as a sentence (exit code 0, 2 or 3), whatever is broken in it?
Prerequisites: the train environment; no network, no model beyond those made here.
Command:       .venv/bin/python -m tools.reliability.fuzz_files [--cases 5000] [--kinds xlsx]
Output:        a line for each failure, with the seed that makes it again, and counts by kind and exit code.

Commands run in this process, for speed; what they start runs in processes of its own. `fuzz_commands.py` says which
command is given what, `fuzz_places.py` makes the files, and `fuzz_breaking.py` breaks one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from sentifactory.cli import build_app, run_guarded
from sentifactory.ui.page_settings import PASSWORD_VARIABLE
from tools.reliability.fuzz_breaking import break_file
from tools.reliability.fuzz_commands import COMMANDS, SLOW, TABLES
from tools.reliability.fuzz_places import build_models, make_place

SOUND_CODES = (0, 2, 3)
PATIENCE_S, LONG_PATIENCE_S = 180, 900  # on a machine that does much else
WITHOUT_MODELS = (*TABLES, "task", "register", "journal", "seal", "belongings")


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that ended as none may.

    Attributes:
        seed: of the case.
        kind: of the broken file.
        command: what was run.
        what: what went wrong, with the last words of the command.
    """

    seed: str
    kind: str
    command: str
    what: str


def run(words: list[str]) -> tuple[int | str | None, str]:
    """Run a command in this process, which keeps its environment; return its exit code and all that it said."""
    said = io.StringIO()
    code: int | str | None = 0
    environment = patch.dict(os.environ, {PASSWORD_VARIABLE: "without it no page is opened to others"})
    with environment, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            run_guarded(lambda: build_app()(words))
        except SystemExit as stop:
            code = stop.code
        except BaseException as error:
            said.write(f"{type(error).__name__} came through: {error}")
            code = "none"
    return code, said.getvalue()


def list_files(folder: Path) -> dict[str, int]:
    """Return every file with its size; locks, which stay, are left out."""
    return {
        str(path.relative_to(folder)): path.lstat().st_size
        for path in sorted(folder.rglob("*"))
        if (path.is_symlink() or path.is_file()) and not path.name.endswith(".lock")
    }


@contextlib.contextmanager
def work_in(folder: Path) -> Iterator[None]:
    """Work in a folder, with temporary files in another one of its own."""
    before, temporary = Path.cwd(), tempfile.tempdir
    scratch = tempfile.mkdtemp(prefix="fuzz-tmp-")
    os.chdir(folder)
    tempfile.tempdir = scratch
    try:
        yield
    finally:
        tempfile.tempdir = temporary
        os.chdir(before)
        shutil.rmtree(scratch, ignore_errors=True)


def run_case(folder: Path, kind: str, seed: str, models: Path | None) -> tuple[int | str | None, Failure | None]:
    """Break a file, run a command on it, and look at what it leaves.

    Args:
        folder: empty.
        kind: of `COMMANDS` or `SLOW`.
        seed: decides everything else.
        models: of `prepare_models`; for the kinds that need them.
    """
    dice = random.Random(seed)  # noqa: S311 - a case that can be made again
    command = dice.choice((COMMANDS | SLOW)[kind])
    with work_in(folder):
        file = make_place(folder, kind, models, dice)
        break_file(file, dice)
        words = command.format(file=file.relative_to(folder), suffix=file.suffix[1:] or "csv").split()
        before = list_files(folder)
        signal.alarm(LONG_PATIENCE_S if kind in SLOW else PATIENCE_S)
        try:
            code, said = run(words)
        finally:
            signal.alarm(0)
        after = list_files(folder)
        changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        if code == 0:  # the second run of the same may replace its own
            changed = [name for name in changed if ".part" in name]
        what = ""
        if code not in SOUND_CODES or "Traceback (most" in said or "came through" in said:
            logs = "".join(log.read_text() for log in Path(tempfile.gettempdir()).glob("sentifactory-error-*"))
            what = f"exit code {code}: {said[-600:]}{logs[-1800:]}"
        elif changed:
            what = f"exit code {code}, and these were left or changed: {', '.join(changed[:5])}"
    return code, Failure(seed, kind, " ".join(words), what) if what else None


def _give_up(*_: object) -> None:
    raise TimeoutError("no answer in time")


def fuzz(
    work: Path, kinds: list[str], seeds: list[str], models: Path | None, tell: Callable[[Failure], None]
) -> tuple[Counter[tuple[str, object]], list[Failure]]:
    """Run one case for each seed, of the kinds in turn.

    Returns:
        Counts by kind and exit code, and the failures.
    """
    before = signal.signal(signal.SIGALRM, _give_up)
    counts: Counter[tuple[str, object]] = Counter()
    failures = []
    try:
        for at, seed in enumerate(seeds):
            kind = kinds[at % len(kinds)]
            folder = Path(tempfile.mkdtemp(dir=work))
            code, failure = run_case(folder, kind, seed, models)
            counts[kind, code] += 1
            if failure is not None:
                failures.append(failure)
                tell(failure)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        signal.signal(signal.SIGALRM, before)
    return counts, failures


def prepare_models(folder: Path) -> Path:
    """Make the models that most kinds need, and reviews prepared for them."""
    folder.mkdir()
    with work_in(folder):
        return build_models(folder, run)


def main() -> None:
    """Fuzz, and exit with 1 where anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="the seed of a single failure, as it was printed")
    parser.add_argument("--kinds", default=",".join(COMMANDS), help="also: " + ",".join(SLOW))
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    out = sys.stdout
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        models = prepare_models(Path(name) / "models") if {*kinds} - {*WITHOUT_MODELS} else None
        seeds = [options.only] if options.only else [f"{options.seed}-{at}" for at in range(options.cases)]
        counts, failures = fuzz(
            Path(name),
            kinds,
            seeds,
            models,
            lambda one: print(
                f"--only {one.seed} --kinds {one.kind}: {one.command}\n  {one.what}", file=out, flush=True
            ),
        )
    for (kind, code), number in sorted(counts.items(), key=str):
        print(f"{kind:14} exit {code}: {number}")
    print(f"{len(seeds)} cases, {len(failures)} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
