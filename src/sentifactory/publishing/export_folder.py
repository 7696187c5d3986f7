"""The folder that an export is written to: new, empty, or of an earlier export, which is replaced."""

from __future__ import annotations

from pathlib import Path

from sentifactory.errors import ConfigError


def refuse_foreign_folder(folder: Path, proof_name: str) -> None:
    """Refuse to write where something else stands.

    Args:
        folder: where the export goes.
        proof_name: of the file by which an earlier export is known.

    Raises:
        ConfigError: when it is a file, or a folder with anything in it and without the proof.
    """
    is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not is_free and not (folder / proof_name).is_file():
        raise ConfigError(
            "Something stands here that no export made, and it would be removed",
            where=str(folder),
            expected="a new or empty folder, or an earlier export",
            next_step="choose another --output_dir",
        )
