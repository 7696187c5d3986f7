"""Which checkpoint a run continues from, and which ones count.

LLaMA-Factory continues from the checkpoint with the highest number, complete or not. Here a checkpoint that was cut
off while it was written is removed before LLaMA-Factory can find it, and a run that was killed is continued by the
same command: every checkpoint carries a marker, written last, with the fingerprint of the run that made it. An older
checkpoint goes only when a newer one has its marker, and loses its name first, so that at no moment a kill leaves
none that counts, or one that counts and is half removed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sentifactory.atomic import write_json
from sentifactory.errors import ConfigError
from sentifactory.file_lock import lock_file, open_lock
from sentifactory.json_object import read_json_object
from sentifactory.progress import say
from sentifactory.training.run_card import read_card

MARKER_NAME = "sentifactory.json"
LOCK_NAME = ".train.lock"
_DOOMED_PATTERN = ".checkpoint-*.old"
_FOLDER_NAME = re.compile(r"checkpoint-(\d+)")


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Return the checkpoint folders, the earliest step first."""
    if not output_dir.is_dir():
        return []
    found = [path for path in output_dir.iterdir() if path.is_dir() and _FOLDER_NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def find_defect(folder: Path) -> str | None:
    """Return why a checkpoint cannot be continued from (the first file that is missing or cut off), or None."""
    patterns = ("*.safetensors", "*.bin", "global_step*", "pytorch_model_fsdp*")
    if not any(path for pattern in patterns for path in folder.glob(pattern)):
        return "it holds no weights"
    for path in sorted(folder.rglob("*.safetensors")):
        if not is_whole_safetensors(path):
            return f"{path.name} is cut off"
    for path in [*sorted(folder.glob("*.pt")), *sorted(folder.glob("*.pth"))]:
        if not zipfile.is_zipfile(path):
            return f"{path.name} is cut off"
    try:
        json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    except OSError:
        return "trainer_state.json is missing"
    except ValueError:
        return "trainer_state.json is cut off"
    return None


def is_whole_safetensors(path: Path) -> bool:
    """Return whether a safetensors file is as long as its header says."""
    with path.open("rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > path.stat().st_size:
            return False
        try:
            header: dict[str, Any] = json.loads(stream.read(length))
        except ValueError:
            return False
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return path.stat().st_size == 8 + length + max(ends, default=0)


def mark_complete(folder: Path, fingerprint: str, **facts: Any) -> None:
    """Write the marker that makes a checkpoint count, with what else must be known to continue from it."""
    write_json(folder / MARKER_NAME, {"fingerprint": fingerprint, **facts})


def read_marker(folder: Path) -> dict[str, Any]:
    """Return what was written into the marker of a checkpoint; nothing where it has none."""
    return read_json_object(folder / MARKER_NAME) or {}


def remove_incomplete(output_dir: Path) -> None:
    """Remove every checkpoint that was cut off while it was written, and say so."""
    for folder in list_checkpoints(output_dir):
        if defect := find_defect(folder):
            say(f"Removing the incomplete checkpoint {folder}: {defect}.")
            remove_checkpoint(folder)
    for leftover in output_dir.glob(_DOOMED_PATTERN):
        shutil.rmtree(leftover, ignore_errors=True)


def remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint in such a way that a kill in the middle leaves nothing that looks like one."""
    doomed = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_checkpoints(output_dir: Path) -> None:
    """Remove what a run would be continued from; it is larger than the model itself."""
    for folder in list_checkpoints(output_dir):
        remove_checkpoint(folder)


def remove_older(output_dir: Path, limit: int | None, best: str | None) -> None:
    """Remove the oldest checkpoints until `limit` are left; the newest and the best one always stay.

    Args:
        output_dir: of the run.
        limit: `save_total_limit`; all stay where it is None or 0.
        best: the checkpoint that is loaded at the end, or None.
    """
    if not limit or limit < 0:
        return
    # By age, as the trainer does it: a folder may hold higher steps of a former run.
    found = sorted(list_checkpoints(output_dir), key=lambda folder: folder.stat().st_mtime_ns)
    spared = {found[-1].name, Path(best).name if best else ""} if found else set()
    doomed = [folder for folder in found if folder.name not in spared]
    for folder in doomed[: max(0, len(found) - limit)]:
        remove_checkpoint(folder)


def choose_start(settings: Mapping[str, Any], fingerprint: str) -> dict[str, Any]:
    """Return settings that let LLaMA-Factory start where it should: anew, or from the last complete checkpoint.

    A run that did not finish is continued when recipe and data are the same. Otherwise LLaMA-Factory's own rules
    hold: `overwrite_output_dir` starts anew, `resume_from_checkpoint` is followed, and without them the last
    checkpoint is continued.
    """
    chosen = dict(settings)
    output_dir = Path(str(settings["output_dir"])).expanduser()
    remove_incomplete(output_dir)
    card = read_card(output_dir)
    if settings.get("resume_from_checkpoint") is not None or card is None:
        return chosen
    ours = [folder for folder in list_checkpoints(output_dir) if read_marker(folder).get("fingerprint") == fingerprint]
    if card.get("status") == "finished":
        if settings.get("overwrite_output_dir"):
            for folder in ours:  # they are not the new run's, though made by the same recipe
                (folder / MARKER_NAME).unlink()
        return chosen
    if ours:
        say(f"Continuing the run that was cut off, from {ours[-1]} (to start anew, remove {output_dir}).")
        if settings.get("save_only_model"):
            say("With save_only_model the optimizer begins anew, so the weights will not be those of an unbroken run.")
        chosen["resume_from_checkpoint"] = str(ours[-1])
        chosen["overwrite_output_dir"] = False
        # How often in a row the validation found nothing better counts on.
        chosen["restore_callback_states_from_checkpoint"] = True
    return chosen


def refuse_foreign(settings: Mapping[str, Any], fingerprint: str) -> None:
    """Refuse to begin where LLaMA-Factory would go on from a checkpoint of another run, for it knows folders alone.

    Raises:
        ConfigError: when another model, recipe or data made the last checkpoint, and nothing says what to do with it.
    """
    output_dir = Path(str(settings["output_dir"])).expanduser()
    found = list_checkpoints(output_dir)
    if not found or settings.get("overwrite_output_dir") or settings.get("resume_from_checkpoint") is not None:
        return
    if read_marker(found[-1]).get("fingerprint", fingerprint) != fingerprint:
        raise ConfigError(
            f"{found[-1].name} was made by a run with another model, recipe or data",
            where=str(output_dir),
            expected="an output_dir without checkpoints, or with those of this run",
            next_step="choose another output_dir, or set overwrite_output_dir: true to begin anew here",
        )


@contextmanager
def hold_output_folder(output_dir: Path) -> Iterator[None]:
    """Keep a second run out of the same output folder.

    Raises:
        ConfigError: when another run writes there.
    """
    with _open_locked(output_dir):
        try:
            yield
        finally:
            (output_dir / LOCK_NAME).unlink(missing_ok=True)


def _open_locked(output_dir: Path) -> IO[bytes]:
    """Return the open lock file.

    Raises:
        ConfigError: when another run holds it.
    """
    while True:
        output_dir.mkdir(parents=True, exist_ok=True)
        stream = open_lock(output_dir / LOCK_NAME)
        try:
            lock_file(stream, output_dir / LOCK_NAME)
        except BlockingIOError as error:
            stream.close()
            raise ConfigError(
                "Another training run is writing here",
                where=str(output_dir),
                next_step="wait for it, or choose another output_dir",
            ) from error
        if os.fstat(stream.fileno()).st_nlink:
            return stream
        stream.close()  # its last holder removed it in the instant between: nobody else would see this lock
