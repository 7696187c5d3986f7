"""The pages generated from the code are up to date and complete."""

from __future__ import annotations

from pathlib import Path

import typer

from sentifactory.cli import build_app
from tools.docs.commands_page import write_commands_page
from tools.docs.writing import build_pages, write_pages


def test_the_page_has_not_drifted_from_the_code(repo_root: Path) -> None:
    written = (repo_root / "contexts" / "commands.md").read_text(encoding="utf-8")
    assert written == build_pages(build_app())["commands.md"], "run python -m tools.docs.writing"


def test_every_command_and_option_is_on_the_page() -> None:
    page = write_commands_page(build_app())
    for words in ("## sentifactory data prepare", "## sentifactory publish", "`--repo_id` | required |", "`RUN`"):
        assert words in page, words
    assert "[searched under saves" not in page  # it is in the column of defaults
    assert "| searched under saves and RUN/reports |" in page


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
    assert write_pages(app, tmp_path) == ["commands.md"]
    assert write_pages(app, tmp_path) == []
