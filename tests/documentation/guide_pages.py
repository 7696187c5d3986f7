"""Reads the guides: their blocks, and the command lines in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_SETTING = re.compile(r"[A-Z][A-Z0-9_]*=.*", re.DOTALL)
MADE = ("commands.md",)


def list_pages(root: Path) -> list[Path]:
    """Return every page that is written by hand: the guides, and those in other folders."""
    places = ["README.md", "README_zh.md", "CONTRIBUTING.md", "data/README.md", "examples/README.md"]
    guides = [path for path in sorted((root / "contexts").glob("*.md")) if path.name not in MADE]
    return [*(root / place for place in places), *guides]


def read_blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in a language; blocks without one count as bash where they hold our command."""
    text = page.read_text(encoding="utf-8")
    return [
        body
        for name, body in _BLOCK.findall(text)
        if name == language or (not name and language == "bash" and body.startswith("sentifactory "))
    ]


def split_commands(block: str) -> list[list[str]]:
    """Return the words of each command of a shell block; settings before a command are left out.

    Example:
        >>> split_commands("A=1 make x  # why\\nsentifactory train f.yaml \\\\\\n    a=1\\n")
        [['make', 'x'], ['sentifactory', 'train', 'f.yaml', 'a=1']]
    """
    commands = []
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and _SETTING.fullmatch(words[0]):
            words = words[1:]
        if words:
            commands.append(words)
    return commands
