"""Reads a small JSON file that may be absent, cut off or somebody else's: run cards, markers, seals, proofs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json_object(path: str | Path) -> dict[str, Any] | None:
    """Return the object that a JSON file holds; None where the file cannot be read, or holds something else."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
