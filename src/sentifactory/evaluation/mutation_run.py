"""Runs mutmut in a copy of the repository: writes the mutants of a room, and tests those that it is told to.

mutmut does its work in processes that are forked from one that has read the tests but run none of them
(`process_isolation = "forkserver"`): torch and OpenMP do not outlive a fork once they have computed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sentifactory.errors import EngineError
from sentifactory.evaluation import mutation_plugin
from sentifactory.evaluation.mutants import Mutant, list_mutants

# The patience with a mutant: so many times what its tests took without it, and so many times this constant.
TIMEOUT_TIMES = 15.0
TIMEOUT_CONSTANT_S = 4.0
_MARKERS = "not slow and not vllm and not gpu and not browser"
# Writes mutants and tests none, which the command line of mutmut cannot do.
_WRITE_MUTANTS = """
from pathlib import Path
from mutmut import __main__ as mutmut
Path("mutants").mkdir()
mutmut.copy_src_dir()
mutmut.copy_also_copy_files()
mutmut.create_mutants(1)
"""
_RUN_MUTMUT = "from mutmut.__main__ import cli; cli()"


@dataclass(frozen=True, slots=True)
class Room:
    """A part of the package and the tests that are to prove it.

    Attributes:
        name: what it is called.
        files: patterns of its files, from the root of the repository.
        tests: files and folders, likewise.
    """

    name: str
    files: tuple[str, ...]
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Workshop:
    """A copy of the repository in which one room is mutated.

    Attributes:
        folder: its root.
        room: what is mutated.
        log: what mutmut and the tests say.
    """

    folder: Path
    room: Room
    log: Path

    def set_up(self, root: Path) -> None:
        """Copy the repository, but not what git ignores, and write down mutmut's settings."""
        shutil.copytree(root, self.folder, ignore=_ignore, dirs_exist_ok=True)
        settings = {
            "source_paths": ["src"],
            "only_mutate": list(self.room.files),
            "do_not_mutate": ["*/mutation_plugin.py"],
            "also_copy": sorted(entry.name for entry in self.folder.iterdir() if entry.name not in ("src", "tests")),
            "process_isolation": "forkserver",
            "pytest_add_cli_args": ["-m", _MARKERS, "-p", mutation_plugin.__name__],
            "pytest_add_cli_args_test_selection": list(self.room.tests),
            "timeout_multiplier": TIMEOUT_TIMES,
            "timeout_constant": TIMEOUT_CONSTANT_S,
        }
        lines = ["", "[tool.mutmut]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items()), ""]
        with (self.folder / "pyproject.toml").open("a", encoding="utf-8") as file:
            file.write("\n".join(lines))
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")

    def write_mutants(self, root: Path) -> list[Mutant]:
        """Have all mutants of the room written, and return them."""
        self._run(_WRITE_MUTANTS)
        models = root / "saves" / "pretrained"
        if models.is_dir():  # tests build what is missing, which takes minutes
            (self.folder / "mutants" / "saves").mkdir()
            (self.folder / "mutants" / "saves" / "pretrained").symlink_to(models.resolve())
        files = sorted({file for pattern in self.room.files for file in self.folder.glob(pattern)})
        return [mutant for file in files for mutant in list_mutants(self.folder, str(file.relative_to(self.folder)))]

    def test_mutants(self, names: Sequence[str]) -> dict[str, str]:
        """Test the mutants of these names one after the other, and return what mutmut says of each.

        Raises:
            EngineError: when mutmut cannot run, or the tests fail without a mutant.
        """
        self._run(_RUN_MUTMUT, "run", "--max-children", "1", *names)
        lines = self._run(_RUN_MUTMUT, "results", "--all", "true").splitlines()
        said = dict(line.strip().split(": ") for line in lines)
        return {name: said[name] for name in names}

    def _run(self, code: str, *words: str) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        paths = [str(self.folder / "mutants" / "src"), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        environment[mutation_plugin.LOG_VARIABLE] = str(self.log)
        start = self.log.stat().st_size
        with self.log.open("ab") as log:
            command = [sys.executable, "-c", code, *words]
            done = subprocess.run(command, cwd=self.folder, env=environment, stdout=log, stderr=log, check=False)
        if done.returncode:
            raise EngineError(
                f"mutmut ended with exit code {done.returncode}", where=str(self.log), next_step="read the log"
            )
        return self.log.read_bytes()[start:].decode("utf-8").strip()


def _ignore(folder: str, names: Sequence[str]) -> set[str]:
    generated = {"saves", "build", "dist", "__pycache__", "node_modules"}
    return {name for name in names if name.startswith(".") or name in generated or name.endswith(".egg-info")}
