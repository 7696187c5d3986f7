"""Commands that reports write down, and that users copy."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from sentifactory.system.command_line import describe_command, write_command


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("/somewhere/.venv/bin/sentifactory", "sentifactory"),
        ("/somewhere/src/sentifactory/cli.py", "sentifactory"),  # python -m sentifactory.cli
        ("scripts/eval_sentiment_compare.py", "scripts/eval_sentiment_compare.py"),
    ],
)
def test_a_command_is_recorded_as_typed(monkeypatch: pytest.MonkeyPatch, program: str, expected: str) -> None:
    monkeypatch.setattr("sys.argv", [program, "eval", "ladder", "--csv_path", "my reviews.csv"])
    assert describe_command() == f"{expected} eval ladder --csv_path 'my reviews.csv'"


def test_a_program_in_this_folder_is_recorded_relative_to_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(tmp_path / "scripts" / "compare.py")])
    assert describe_command() == "scripts/compare.py"


def test_a_command_to_copy_has_the_words_of_its_parts() -> None:
    words = ["predict", "a 'b' $c", "--model", "my model", "--csv_path", "数据/评论.csv"]
    written = write_command("predict", "a 'b' $c", ("--model", Path("my model")), ("--csv_path", words[-1]), None)
    assert shlex.split(written) == ["sentifactory", *words]
    assert write_command("train", ("--task", None), "a.yaml") == "sentifactory train a.yaml"
