"""The workspace: the only folder that the page writes to, and the names of files in it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sentifactory.errors import ConfigError
from sentifactory.system.atomic import explain_os_errors
from sentifactory.ui.error_sentences import PageError
from sentifactory.ui.page_words import WORDS

# Limits of the uploads that are kept: room for many large files, not the whole disk.
MAX_KEPT_FILES = 1000
MAX_KEPT_BYTES = 10_000_000_000
_NAME_CHARS = 40


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folders of the page.

    Attributes:
        root: absolute.
    """

    root: Path

    @property
    def uploads(self) -> Path:
        """Files as they were uploaded, each in a folder of its own."""
        return self.root / "uploads"

    @property
    def data(self) -> Path:
        """Prepared data sets with their dataset_info.json."""
        return self.root / "data"

    @property
    def tasks(self) -> Path:
        """A YAML file for each task that was made of the labels of a file."""
        return self.root / "tasks"

    @property
    def data_reports(self) -> Path:
        """An HTML report of each data set."""
        return self.root / "data_reports"

    @property
    def models(self) -> Path:
        """Trained models."""
        return self.root / "models"

    @property
    def jobs(self) -> Path:
        """A folder for each training: recipe, log and job.json."""
        return self.root / "jobs"

    @property
    def reports(self) -> Path:
        """A folder for each comparison."""
        return self.root / "reports"

    @property
    def temporary(self) -> Path:
        """Uploads that are not used yet, and gradio's temporary files."""
        return self.root / "temporary"

    def list_names(self, folder: Path) -> list[str]:
        """Return the names of the folders in one of the above, the newest first."""
        return [path.name for path in list_newest(folder)]

    def keep_upload(self, file: str | Path, name: str) -> Path:
        """Copy a file into a folder of its own, named like the data set, and return its path.

        Raises:
            PageError: when the limit of kept uploads is reached, or the upload has been removed meanwhile.
        """
        source = Path(file)
        n_files, n_bytes = measure_folder(self.uploads)
        try:
            n_bytes += source.stat().st_size
            if n_files >= MAX_KEPT_FILES or n_bytes > MAX_KEPT_BYTES:
                raise PageError(*WORDS["too_many_kept"], code="uploads-full")
            folder = reserve_folder(self.uploads, name)
            target = folder / f"{folder.name}{source.suffix.lower()}"
            with self.keep_if_used(target), explain_os_errors(target):
                shutil.copyfile(source, target)
        except FileNotFoundError as error:
            raise PageError(*WORDS["no_such_upload"], code="upload-gone") from error
        return target

    @contextlib.contextmanager
    def keep_if_used(self, upload: Path) -> Iterator[None]:
        """Remove a kept upload again where its use fails: what is refused must not fill the limit."""
        try:
            yield
        except BaseException:
            shutil.rmtree(upload.parent, ignore_errors=True)
            raise

    def hide_root(self, text: str) -> str:
        """Return a text without the path of the workspace."""
        return text.replace(f"{self.root}/", "")


def list_newest(folder: Path, mark: str = ".") -> list[Path]:
    """Return the folders in a folder, the newest first; those that are removed meanwhile are left out.

    Args:
        folder: need not exist.
        mark: a file in each of them, whose time counts and without which one is left out; `.`: the folder itself.
    """
    changed_at: dict[Path, int] = {}
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                if path.is_dir() and not path.name.startswith("."):
                    changed_at[path] = (path / mark).stat().st_mtime_ns
    return sorted(changed_at, key=lambda path: (-changed_at[path], path.name))


def open_workspace(folder: str | Path) -> Workspace:
    """Return the workspace in a folder, which is created where it does not exist.

    Raises:
        ConfigError: when the folder cannot be used.
    """
    root = Path(folder).expanduser().resolve()
    if "," in str(root):
        raise ConfigError(
            "The path contains a comma, which separates file names in recipes",
            where=str(root),
            next_step="choose another --workspace",
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        for path in ("uploads", "data", "tasks", "models", "jobs", "reports", "data_reports", "temporary"):
            (root / path).mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"This folder cannot be used ({error.strerror})",
            where=str(root),
            next_step="choose another --workspace",
        ) from error
    return Workspace(root)


def measure_folder(folder: Path) -> tuple[int, int]:
    """Return the number of files below a folder and their bytes; files that are removed meanwhile do not count."""
    sizes = []
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                sizes.append((Path(place) / name).lstat().st_size)
    return len(sizes), sum(sizes)


def reserve_folder(parent: Path, wish: str) -> Path:
    """Create a folder of a name that nobody has, also where another page chooses one at the same time.

    Raises:
        ConfigError: when it cannot be created.
    """
    with explain_os_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            folder = parent / choose_name(parent, wish)
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder


@contextlib.contextmanager
def keep_if_filled(folder: Path) -> Iterator[None]:
    """Remove a folder that was reserved where what follows fails and leaves it empty."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise


def choose_name(folder: Path, wish: str) -> str:
    """Return a valid file name that does not exist in a folder.

    Example:
        >>> choose_name(Path("/nowhere"), "../My reviews (v1.5)")
        'My_reviews_v1_5'
    """
    stem = re.sub(r"[^\w-]+", "_", Path(wish).name).strip("_-")[:_NAME_CHARS] or "reviews"
    name, number = stem, 1
    while (folder / name).exists():
        number += 1
        name = f"{stem}_{number}"
    return name
