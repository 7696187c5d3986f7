"""500 broken files of every kind: each command ends with a sentence, and leaves nothing half-written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from sentifactory.cli import build_app
from tools.reliability import fuzz_commands, fuzz_files

N_CASES = 500
# What is read with a model costs ten times what a table costs: fewer of these.
N_MODEL_CASES = 54
# The last words of the options that name a file or a folder which is read.
INPUT = re.compile(
    r"(?!output_|max_)(\w+_)?(file|csv|path|model|models|task|report|space|recipes|workspace|train|test|teacher|tokenizer|dataset_dir)"
)


def list_commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command of the table with its name."""
    for word, inner in getattr(command, "commands", {}).items():
        yield from list_commands(inner, f"{name} {word}".strip())
    if not hasattr(command, "commands"):
        yield name, command


def test_every_command_and_every_option_that_names_a_file_takes_part() -> None:
    lines = [line for lines in (fuzz_commands.COMMANDS | fuzz_commands.SLOW).values() for line in lines]
    known = dict(list_commands(typer.main.get_command(build_app())))
    assert known.keys() >= fuzz_commands.WITHOUT_FILES
    for name, command in known.items():
        own = [line.split() for line in lines if line.startswith(f"{name} ") or line == name]
        assert bool(own) != (name in fuzz_commands.WITHOUT_FILES), name
        wanted = {option for one in command.params for option in one.opts if INPUT.fullmatch(option.lstrip("-"))}
        given = {word for words in own for word in words}
        assert {option for option in wanted if option.startswith("--")} <= given, name


def fuzz(work: Path, kinds: list[str], number: int, models: Path | None) -> None:
    seeds = [f"test-{at}" for at in range(number)]
    counts, failures = fuzz_files.fuzz(work, kinds, seeds, models, lambda failure: None)
    assert failures == []
    assert sum(counts.values()) == number
    assert {code for _, code in counts} >= {0, 2}, "some are refused and some can still be read"


@pytest.mark.slow
def test_tables_and_small_files(tmp_path: Path) -> None:
    fuzz(tmp_path, [*fuzz_files.WITHOUT_MODELS], N_CASES - N_MODEL_CASES, None)


@pytest.mark.slow
def test_models_and_what_is_read_with_them(tmp_path: Path) -> None:
    kinds = [kind for kind in fuzz_files.COMMANDS if kind not in fuzz_files.WITHOUT_MODELS]
    fuzz(tmp_path, kinds, N_MODEL_CASES, fuzz_files.prepare_models(tmp_path / "models"))


def test_the_fuzz_notices_what_it_looks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, (name, code) in enumerate((("defect", 70), ("half", 2))):
        folder = tmp_path / name
        folder.mkdir()

        def run(words: list[str], name: str = name, code: int = code) -> tuple[int, str]:
            if name == "half":
                Path("half.csv").write_text("half")
            return code, "Error"

        monkeypatch.setattr(fuzz_files, "run", run)
        assert fuzz_files.run_case(folder, "csv", f"{number}", None)[1] is not None
