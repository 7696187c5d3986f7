"""Names of the files that hold the terms of a model; they go with every copy of it."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

# In lower case; names are compared without regard to case.
NOTICES = ("license*", "licence*", "notice*", "use_policy*", "copying*")


def list_notices(folder: Path) -> list[Path]:
    """Return the files with the terms of the model in a folder, sorted."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and any(fnmatch(path.name.lower(), pattern) for pattern in NOTICES)
    ]
