"""The one folder under which the page writes, and the names that it gives to what people bring."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from sentifactory.errors import ConfigError

# Of what people bring and is kept; room for many of the largest, and not for the whole disk.
MOST_KEPT_FILES = 1000
MOST_KEPT_BYTES = 10_000_000_000
_NAME_CHARS = 40


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where the page keeps what it is given and what it makes.

    Attributes:
        root: absolute.
    """

    root: Path

    @property
    def uploads(self) -> Path:
        """Files as they were brought, each in a folder of its own."""
        return self.root / "uploads"

    @property
    def data(self) -> Path:
        """Prepared data sets, and their dataset_info.json."""
        return self.root / "data"

    @property
    def data_reports(self) -> Path:
        """A page for each data set."""
        return self.root / "data_reports"

    @property
    def models(self) -> Path:
        """What was trained."""
        return self.root / "models"

    @property
    def jobs(self) -> Path:
        """A folder for each training: recipe, log and what is needed to find it again."""
        return self.root / "jobs"

    @property
    def reports(self) -> Path:
        """A folder for each comparison."""
        return self.root / "reports"

    @property
    def temporary(self) -> Path:
        """What gradio puts down on its own."""
        return self.root / "temporary"

    def list_names(self, folder: Path) -> list[str]:
        """Return the names of the folders in one of the above, the newest first."""
        if not folder.is_dir():
            return []
        found = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
        return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)]

    def keep_upload(self, file: str | Path, name: str) -> Path:
        """Copy a file into a folder of its own under the name of the data set, and return its path.

        Raises:
            ConfigError: when so much is kept already that there is no room for it.
        """
        source = Path(file)
        n_files, n_bytes = measure_folder(self.uploads)
        if n_files >= MOST_KEPT_FILES or n_bytes + source.stat().st_size > MOST_KEPT_BYTES:
            raise ConfigError(
                f"This page keeps {n_files} uploaded files already, {n_bytes / 1e9:.1f} GB",
                where="uploads",
                expected=f"up to {MOST_KEPT_FILES} files and {MOST_KEPT_BYTES / 1e9:.0f} GB",
                next_step="start the page on another --workspace, or move older uploads elsewhere",
            )
        folder = self.uploads / choose_name(self.uploads, name)
        folder.mkdir(parents=True)
        target = folder / f"{folder.name}{source.suffix.lower()}"
        shutil.copyfile(source, target)
        return target

    def hide_root(self, text: str) -> str:
        """Return a text without the place of the workspace, which is nobody's business."""
        return text.replace(f"{self.root}/", "")


def open_workspace(folder: str | Path) -> Workspace:
    """Return the workspace in a folder, which is made where it is not there.

    Raises:
        ConfigError: when the folder cannot be used.
    """
    root = Path(folder).expanduser().resolve()
    if "," in str(root):
        raise ConfigError(
            "The name holds a comma, which recipes take for the end of a file's name",
            where=str(root),
            next_step="choose another --workspace",
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        for path in ("uploads", "data", "models", "jobs", "reports", "data_reports", "temporary"):
            (root / path).mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"This folder cannot be used ({error.strerror})",
            where=str(root),
            next_step="choose another --workspace",
        ) from error
    return Workspace(root)


def measure_folder(folder: Path) -> tuple[int, int]:
    """Return the number of files below a folder and their bytes; what is removed meanwhile does not count."""
    sizes = []
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                sizes.append((Path(place) / name).lstat().st_size)
    return len(sizes), sum(sizes)


def choose_name(folder: Path, wish: str) -> str:
    """Return a name that is fit for a file and not taken in a folder; nothing that is there is ever replaced.

    Example:
        >>> choose_name(Path("/nowhere"), "../My reviews (2).csv")
        'My_reviews_2'
    """
    stem = re.sub(r"[^\w-]+", "_", Path(wish).stem).strip("_-")[:_NAME_CHARS] or "reviews"
    name, number = stem, 1
    while (folder / name).exists():
        number += 1
        name = f"{stem}_{number}"
    return name
