"""Files that are removed while the page lists or reads them do no harm."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from sentifactory.ui.error_sentences import PageError
from sentifactory.ui.uploads import RefusedError, Uploads
from sentifactory.ui.workspace import list_newest, open_workspace


def test_a_folder_that_vanishes_after_the_listing_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = open_workspace(tmp_path / "space")
    for name in ("kept", "vanishing"):
        (workspace.data / name).mkdir()
    is_dir = Path.is_dir

    def look_and_remove(path: Path) -> bool:
        found = is_dir(path)
        if path.name == "vanishing":
            shutil.rmtree(path, ignore_errors=True)
        return found

    monkeypatch.setattr(Path, "is_dir", look_and_remove)
    assert workspace.list_names(workspace.data) == ["kept"]
    assert list_newest(tmp_path / "never was") == []


def test_an_upload_that_was_swept_is_named_so(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path / "space")
    with pytest.raises(PageError) as caught:
        workspace.keep_upload(tmp_path / "gone.csv", "gone")
    assert caught.value.code == "upload-gone"
    assert list(workspace.uploads.iterdir()) == []


def test_an_upload_that_is_swept_while_it_is_found_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = open_workspace(tmp_path / "space")
    token = "0" * 32
    (workspace.temporary / token).mkdir()
    (workspace.temporary / token / "a.csv").write_text("label,text\n")
    uploads = Uploads(workspace)
    is_symlink = Path.is_symlink

    def look_and_remove(path: Path) -> bool:
        found = is_symlink(path)
        shutil.rmtree(path.parent, ignore_errors=True)
        return found

    monkeypatch.setattr(Path, "is_symlink", look_and_remove)
    with pytest.raises(RefusedError):
        uploads.find(f"{token}/a.csv")
    assert not (workspace.temporary / token).exists(), "no file is made in its place"


def test_sweeping_and_counting_survive_a_removed_folder(tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path / "space")
    shutil.rmtree(workspace.temporary)
    uploads: Any = Uploads(workspace)
    uploads.sweep()
