"""Where reports go unless the user names a place: next to the data set or the model that they are about.

`data prepare` keeps this folder of a data set that it prepares again, and training that of a model.
"""

from __future__ import annotations

from pathlib import Path

from sentifactory.task.model_folder import iter_manifests

REPORTS = "reports"


def find_data_reports(data: str | Path) -> Path:
    """Return the folder for reports about reviews: in the folder of a prepared data set, or next to a single file.

    Args:
        data: the folder of a data set, one of its files, or any other file.

    Example:
        >>> find_data_reports("elsewhere/my reviews.csv").as_posix()
        'elsewhere/my reviews_reports'
    """
    path = Path(data)
    if path.is_dir():
        return path / REPORTS
    for folder, name, manifest in iter_manifests(path):
        if name in (manifest.get("outputs") or ()):
            return folder / REPORTS
    return path.with_name(f"{path.stem}_{REPORTS}")


def find_model_reports(model: str | Path) -> Path:
    """Return the folder for reports about a model: in its own folder, or under `saves` for a name on a hub or server.

    Example:
        >>> find_model_reports("owner/name").as_posix()
        'saves/reports/owner_name'
    """
    folder = Path(model).expanduser()
    return folder / REPORTS if folder.is_dir() else Path("saves", REPORTS, str(model).strip("/").replace("/", "_"))
