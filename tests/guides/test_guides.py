"""The pages that are made from the code stand there as the code has them now, and hold what they should."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import typer

from sentifactory.cli import build_app
from sentifactory.guides.commands_page import write_commands_page
from sentifactory.guides.errors_page import find_messages, read_text, write_errors_page
from sentifactory.guides.writing import build_pages, write_pages


@pytest.mark.parametrize("name", ["commands.md", "error_messages.md"])
def test_the_pages_have_not_drifted_from_the_code(repo_root: Path, name: str) -> None:
    written = (repo_root / "contexts" / name).read_text(encoding="utf-8")
    assert written == build_pages(build_app())[name], "run python scripts/write_guides.py"


def test_every_command_and_option_is_on_the_page() -> None:
    page = write_commands_page(build_app())
    for words in ("## sentifactory data prepare", "## sentifactory publish", "`--repo_id` | required |", "`RUN`"):
        assert words in page, words
    assert "[looked for in saves]" not in page  # stands in the column of defaults
    assert "| looked for in saves |" in page


def test_a_changed_help_text_shows(tmp_path: Path) -> None:
    app = typer.Typer()

    @app.command("one")
    def one(size: int = typer.Option(3, "--size", help="How | large.")) -> None:
        """Do one thing. And no other.

        At length.
        """

    @app.command("two")
    def two() -> None:
        """Do another."""

    page = write_commands_page(app)
    assert "| [`sentifactory one`](#sentifactory-one) | Do one thing. |" in page
    assert "| `--size` | 3 | How \\| large. |" in page
    assert "\nAt length.\n" in page
    assert write_pages(app, tmp_path) == ["commands.md", "error_messages.md"]
    assert write_pages(app, tmp_path) == []


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("'plain'", "plain"),
        ("f'{a} of {b} rows'", "… of … rows"),
        ("f'{a}{b}'", "…"),
        ("'one' if a else 'two'", "one / two"),
        ('f\'thing{"s" if n > 1 else ""} wrong\'', "thing… wrong"),
        ("'a: ' + '; '.join(found)", "a: …"),
    ],
)
def test_how_a_message_is_read(code: str, text: str) -> None:
    assert read_text(ast.parse(code, mode="eval").body) == text


def test_every_place_that_makes_an_error_is_found(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "part.py").write_text(
        "def f(x):\n"
        "    raise ConfigError(f'There is no {x}', expected='a *thing*', next_step='make one')\n"
        "def g():\n"
        "    return DataError('Returned, not raised', where='a')\n"
        "    raise ValueError('a defect, not a message')\n"
        "WORDS = 'A name for it'\n"
        "def h(x):\n"
        "    step = 'do it' if x else 'leave it'\n"
        "    raise EngineError(WORDS, next_step=step)\n"
    )
    found = [(one.kind, one.what) for one in find_messages(tmp_path)]
    assert found == [
        ("ConfigError", "There is no …"),
        ("DataError", "Returned, not raised"),
        ("EngineError", "A name for it"),
    ]
    page = write_errors_page(tmp_path)
    assert "## room" in page
    assert "- **There is no …** (ConfigError, `room/part.py`)" in page
    assert "a \\*thing\\*" in page
    assert "do it / leave it" in page
