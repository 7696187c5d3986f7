"""What the program writes, compared with files that stand beside the tests.

With SENTIFACTORY_WRITE_EXPECTED=1 these are written anew, to be read in the diff.
"""

from __future__ import annotations

import os
import re
from pathlib import Path


def compare_words(text: str, expected: Path) -> None:
    """Assert that a text has the lines of a file."""
    if os.environ.get("SENTIFACTORY_WRITE_EXPECTED"):
        expected.parent.mkdir(exist_ok=True)
        expected.write_text(text, encoding="utf-8")
    assert text.splitlines() == expected.read_text(encoding="utf-8").splitlines()


def read_words(page: str) -> str:
    """Return the words of a page, a line for each piece."""
    text = re.sub(r"<[^>]+>", "\n", re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL))
    return re.sub(r"\s*\n\s*", "\n", text).strip() + "\n"
