"""Decides which checkpoint a run continues from, and removes incomplete and older ones.

LLaMA-Factory continues from the checkpoint with the highest number, complete or not. Here an incomplete checkpoint is
removed before LLaMA-Factory can find it, and the same command continues a run that was killed: every checkpoint
carries a marker, written last, with the fingerprint of its run. An older checkpoint is removed only after a newer one
has its marker, and renamed first, so that a kill at any moment leaves a valid checkpoint, and none that is valid but
partly removed.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sentifactory.errors import ConfigError
from sentifactory.models.complete_folder import list_checkpoints
from sentifactory.models.weights import SETTING_FILES, WEIGHT_PATTERNS, read_stated_length
from sentifactory.system.atomic import explain_os_errors, write_json
from sentifactory.system.file_lock import lock_file, open_lock
from sentifactory.system.json_text import read_json, read_json_object
from sentifactory.system.progress import say
from sentifactory.system.ranks import count_ranks
from sentifactory.system.stop_signals import note_kept
from sentifactory.task.model_folder import TASK_NAME
from sentifactory.training.run.run_card import read_card

MARKER_NAME = "sentifactory.json"
LOCK_NAME = ".train.lock"
_REMOVAL_PATTERN = ".checkpoint-*.old"
# Files that trainers, their distributed strategies and our own callback write into a checkpoint.
_CHECKPOINT_FILES = (
    *WEIGHT_PATTERNS, *SETTING_FILES, "*.index.json", "*.pt", "*.pth", "*.model", "*.part", "trainer_state.json",
    "README.md", "global_step*", "pytorch_model_fsdp*", "optimizer_*", "latest", "zero_to_fp32.py",
    "preprocessor*.json", "processor_config.json", MARKER_NAME, TASK_NAME,
    ".tmp" + 6 * "[0-9A-Za-z]",  # safetensors writes weights to such a file and renames it; a kill leaves it behind
)  # fmt: skip


def find_foreign_file(folder: Path) -> Path | None:
    """Return a file in a checkpoint that no trainer writes, or the folder itself if it is a link; else None."""
    if folder.is_symlink():
        return folder
    return next((path for path in sorted(folder.iterdir()) if not any(map(path.match, _CHECKPOINT_FILES))), None)


def refuse_foreign_files(output_dir: Path) -> None:
    """Refuse an output folder with checkpoint folders that contain other files: a run may remove such folders.

    Raises:
        ConfigError: when a checkpoint folder contains a file that no trainer writes.
    """
    for folder in list_checkpoints(output_dir):
        if (foreign := find_foreign_file(folder)) is not None:
            raise ConfigError(
                f"{folder.name} has the name of a checkpoint, but contains a file that is not from a training run: "
                "it would be removed",
                where=str(foreign),
                next_step="move that file, or choose another output_dir",
                code="output-foreign",
            )


def find_defect(folder: Path) -> str | None:
    """Return why a run cannot continue from a checkpoint (a missing or truncated file), or None."""
    patterns = ("*.safetensors", "*.bin", "global_step*", "pytorch_model_fsdp*")
    if not any(path for pattern in patterns for path in folder.glob(pattern)):
        return "it contains no weights"
    for path in sorted(folder.rglob("*.safetensors")):
        if not is_whole_safetensors(path):
            return f"{path.name} is truncated"
    for path in [*sorted(folder.glob("*.pt")), *sorted(folder.glob("*.pth"))]:
        if not zipfile.is_zipfile(path):
            return f"{path.name} is truncated"
    try:
        read_json(folder / "trainer_state.json")
    except OSError:
        return "trainer_state.json is missing"
    except ValueError:
        return "trainer_state.json is truncated"
    return None


def is_whole_safetensors(path: Path) -> bool:
    """Return whether the length of a safetensors file matches its header."""
    return read_stated_length(path) == path.stat().st_size


def mark_complete(folder: Path, fingerprint: str, **facts: Any) -> None:
    """Write the marker that makes a checkpoint valid, with further facts for its continuation."""
    write_json(folder / MARKER_NAME, {"fingerprint": fingerprint, **facts})


def read_marker(folder: Path) -> dict[str, Any]:
    """Return the content of a checkpoint's marker; empty where it has none."""
    return read_json_object(folder / MARKER_NAME) or {}


def remove_incomplete(output_dir: Path) -> None:
    """Remove every incomplete checkpoint, and report it."""
    for folder in list_checkpoints(output_dir):
        if defect := find_defect(folder):
            say(f"Removing the incomplete checkpoint {folder}: {defect}.")
            remove_checkpoint(folder)
    for leftover in output_dir.glob(_REMOVAL_PATTERN):
        shutil.rmtree(leftover, ignore_errors=True)


def remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint, renaming it first, so that a kill leaves nothing that looks like one.

    A checkpoint that contains somebody else's files stays.
    """
    if (foreign := find_foreign_file(folder)) is not None:
        say(f"{folder} is kept: {foreign.name} is not from a training run.")
        return
    removed = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(removed, ignore_errors=True)
    folder.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


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
    # By age, as the trainer does it: a folder may hold higher steps of an earlier run.
    found = sorted(list_checkpoints(output_dir), key=lambda folder: folder.stat().st_mtime_ns)
    spared = {found[-1].name, Path(best).name if best else ""} if found else set()
    removed = [folder for folder in found if folder.name not in spared]
    for folder in removed[: max(0, len(found) - limit)]:
        remove_checkpoint(folder)


def choose_start(settings: Mapping[str, Any], fingerprint: str) -> dict[str, Any]:
    """Return settings that make LLaMA-Factory start from scratch, or from the last complete checkpoint.

    An unfinished run with the same recipe and data is continued. Otherwise LLaMA-Factory's own rules apply:
    `overwrite_output_dir` starts from scratch, `resume_from_checkpoint` is followed, and without them the last
    checkpoint is continued.

    Raises:
        ConfigError: when a checkpoint folder, which a run may remove, contains other files, or the unfinished run had
            another number of processes.
    """
    chosen = dict(settings)
    output_dir = Path(str(settings["output_dir"])).expanduser()
    refuse_foreign_files(output_dir)
    remove_incomplete(output_dir)
    card = read_card(output_dir)
    if settings.get("resume_from_checkpoint") is not None or card is None:
        return chosen
    ours = [folder for folder in list_checkpoints(output_dir) if read_marker(folder).get("fingerprint") == fingerprint]
    if card.get("status") == "finished":
        if settings.get("overwrite_output_dir"):
            for folder in ours:  # the new run has the same fingerprint, but must not continue from them
                (folder / MARKER_NAME).unlink()
        return chosen
    if ours:
        _refuse_other_processes(ours[-1], card)
        say(f"Continuing the interrupted run from {ours[-1]} (to start from scratch, choose another output_dir).")
        if settings.get("save_only_model"):
            say("With save_only_model the optimizer starts from scratch, so the weights will not be the same.")
        note_kept(output_dir, ours[-1].name)
        chosen["resume_from_checkpoint"] = str(ours[-1])
        chosen["overwrite_output_dir"] = False
        # The patience counter of early stopping is continued.
        chosen["restore_callback_states_from_checkpoint"] = True
    return chosen


def _refuse_other_processes(folder: Path, card: Mapping[str, Any]) -> None:
    # The trainer finds its place in the data, the learning rate and the end of the run by the number of steps.
    before, now = read_marker(folder).get("processes", card.get("world_size")), count_ranks()
    if before not in (None, now):
        raise ConfigError(
            f"The interrupted run had {before} process{'es' if before != 1 else ''}, and this one has {now}: a step "
            "has another number of reviews, so that epochs would be left out or repeated",
            where=str(folder),
            expected=f"{before} on all machines together",
            next_step="start as many as before (--processes), or start from scratch in another output_dir",
            code="checkpoint-other-processes",
        )


def refuse_other_run(settings: Mapping[str, Any], fingerprint: str) -> None:
    """Refuse an output folder in which LLaMA-Factory would continue from a checkpoint of another run.

    Raises:
        ConfigError: when the last checkpoint has another model, recipe or data, and no setting says what to do.
    """
    output_dir = Path(str(settings["output_dir"])).expanduser()
    found = list_checkpoints(output_dir)
    if not found or settings.get("overwrite_output_dir") or settings.get("resume_from_checkpoint") is not None:
        return
    if read_marker(found[-1]).get("fingerprint", fingerprint) != fingerprint:
        raise ConfigError(
            f"{found[-1].name} belongs to a run with another model, recipe or data",
            where=str(output_dir),
            expected="an output_dir without checkpoints, or only with those of this run",
            next_step="choose another output_dir, or move the checkpoints elsewhere",
            code="checkpoint-other-run",
        )


def remove_former(output_dir: Path, fingerprint: str) -> None:
    """Remove the checkpoints of a run that starts from scratch, but never those of another run.

    Raises:
        ConfigError: when there are checkpoints of another run, which may need them to continue.
    """
    has_card = read_card(output_dir) is not None  # a run that was killed has not marked its last checkpoint
    found = list_checkpoints(output_dir)
    for folder in found:
        if read_marker(folder).get("fingerprint", fingerprint if has_card else None) != fingerprint:
            raise ConfigError(
                f"{folder.name} belongs to a run with another model, recipe or data",
                where=str(output_dir),
                expected="an output_dir without checkpoints, or only with those of this run",
                next_step="choose another output_dir, or move the checkpoints elsewhere",
                code="checkpoint-other-run",
            )
    for folder in found:
        say(f"Removing {folder}, a checkpoint of this run, which starts from scratch.")
        remove_checkpoint(folder)


@contextmanager
def hold_output_folder(output_dir: Path) -> Iterator[None]:
    """Lock the output folder against a second run.

    Raises:
        ConfigError: when another run holds it.
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
        with explain_os_errors(output_dir / LOCK_NAME):
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
                code="training-runs",
            ) from error
        if os.fstat(stream.fileno()).st_nlink:
            return stream
        stream.close()  # its last holder has just deleted it, so no other process would see this lock
