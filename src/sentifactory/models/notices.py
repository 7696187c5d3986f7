"""Names of the files that hold the terms of a model; they go with every copy of it."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Iterable
from fnmatch import fnmatch
from itertools import count
from pathlib import Path

from sentifactory.system.atomic import write_text

# In lower case; names are compared without regard to case.
NOTICES = ("license*", "licence*", "notice*", "use_policy*", "copying*")
_HUB_STORE = "blobs"
_NOTICE_NAME = "NOTICE"


def list_notices(folder: Path) -> list[Path]:
    """Return the files with the terms of the model in a folder, sorted; links out of it are left out."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and any(fnmatch(path.name.lower(), pattern) for pattern in NOTICES)
        and not leads_outside(path)
    ]


def copy_notices(folders: Iterable[Path], place: Path) -> None:
    """Copy the terms in several folders; a file whose name another text has already gets a number."""
    for path in (path for folder in folders for path in list_notices(folder)):
        target = place / path.name
        for number in count(2):
            if not target.exists() or filecmp.cmp(path, target, shallow=False):
                break
            target = place / f"{path.stem}-{number}{path.suffix}"
        shutil.copyfile(path, target)


def add_notice(folder: Path, notice: str) -> None:
    """Write the notice that a model's terms ask for into the file NOTICE, unless a file with terms contains it."""
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in list_notices(folder)]
    if any(" ".join(notice.split()) in " ".join(text.split()) for text in texts):
        return
    file = folder / _NOTICE_NAME
    former = f"{file.read_text(encoding='utf-8', errors='replace').rstrip()}\n\n" if file.is_file() else ""
    write_text(file, f"{former}{notice}\nThe weights in this folder were modified by fine-tuning.\n")


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
