"""Writes the pages that are made from the code, or says which of them have drifted from it."""

from __future__ import annotations

from pathlib import Path

import typer

import sentifactory
from sentifactory.atomic import write_text
from sentifactory.guides.commands_page import write_commands_page
from sentifactory.guides.errors_page import write_errors_page
from sentifactory.guides.figures import SUFFIXES
from sentifactory.guides.parts import replace_part
from sentifactory.guides.power_part import write_power_part


def build_pages(app: typer.Typer) -> dict[str, str]:
    """Return the pages that are made as a whole, by file name."""
    package = Path(sentifactory.__file__).parent
    return {"commands.md": write_commands_page(app), "error_messages.md": write_errors_page(package)}


def build_parts(folder: Path) -> dict[str, str]:
    """Return the pages of a folder in which a part follows from the code alone, with that part as it is now."""
    pages = {}
    for language, suffix in SUFFIXES.items():
        path = folder / f"evaluation{suffix}.md"
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            pages[path.name] = replace_part(text, "power", write_power_part(language), str(path))
    return pages


def write_pages(app: typer.Typer, folder: Path) -> list[str]:
    """Write the pages into a folder and return the names of those that were others before.

    Raises:
        ConfigError: when the place may not be written.
    """
    changed = []
    for name, text in (build_pages(app) | build_parts(folder)).items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
            changed.append(name)
    return changed
