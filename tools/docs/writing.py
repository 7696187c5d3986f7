"""Writes the pages and tables under `contexts/` that follow from the code alone.

Example:
    python -m tools.docs.writing
"""

from __future__ import annotations

from pathlib import Path

import typer

from sentifactory.cli import build_app, run_guarded
from sentifactory.system.atomic import write_text
from tools.docs.commands_page import write_commands_page
from tools.docs.engines_part import write_engines_part
from tools.docs.evaluation_parts import write_power_part
from tools.docs.figures import SUFFIXES
from tools.docs.page_parts import replace_part

# Page, part, and the function that writes the part in a language.
_PARTS = (
    ("evaluation", "power", write_power_part),
    ("scaling_out", "engines", write_engines_part),
)


def build_pages(app: typer.Typer) -> dict[str, str]:
    """Return the generated pages by file name."""
    return {"commands.md": write_commands_page(app)}


def build_parts(folder: Path) -> dict[str, str]:
    """Return the pages with a table that follows from the code alone, with that table up to date."""
    pages = {}
    for language, suffix in SUFFIXES.items():
        for page, part, write in _PARTS:
            path = folder / f"{page}{suffix}.md"
            if path.is_file():
                text = path.read_text(encoding="utf-8")
                pages[path.name] = replace_part(text, part, write(language), str(path))
    return pages


def write_pages(app: typer.Typer, folder: Path) -> list[str]:
    """Write the pages into a folder and return the names of those that have changed.

    Raises:
        ConfigError: if a page cannot be written.
    """
    changed = []
    for name, text in (build_pages(app) | build_parts(folder)).items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
            changed.append(name)
    return changed


if __name__ == "__main__":
    run_guarded(
        lambda: print("Written:", ", ".join(write_pages(build_app(), Path("contexts"))) or "nothing has changed")
    )
