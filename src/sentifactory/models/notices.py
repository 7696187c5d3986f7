"""Names of the files that hold the terms of a model; they go with every copy of it."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

# In lower case; names are compared without regard to case.
NOTICES = ("license*", "licence*", "notice*", "use_policy*", "copying*")
_HUB_STORE = "blobs"


def list_notices(folder: Path) -> list[Path]:
    """Return the files with the terms of the model in a folder, sorted; links out of it are left out."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and any(fnmatch(path.name.lower(), pattern) for pattern in NOTICES)
        and not leads_outside(path)
    ]


def leads_outside(path: Path) -> bool:
    """Return whether a file of a model's folder is a link to another place than the folder or its hub cache.

    A copy of such a link would pass on any file that the user can read. In the hub's cache every file is a link from
    `snapshots/<commit>` to `blobs`.
    """
    if not path.is_symlink():
        return False
    folder, target = path.parent.resolve(), path.resolve()
    is_cached = folder.parent.name == "snapshots" and target.parent == folder.parent.parent / _HUB_STORE
    return not (target.is_relative_to(folder) or is_cached)
