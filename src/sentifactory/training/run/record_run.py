"""Writes the final run card of every training run, however the run ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sentifactory.redaction import mask_text
from sentifactory.system.hardware import measure_peak_memory
from sentifactory.system.ranks import is_main_process
from sentifactory.system.stop_signals import note_kept
from sentifactory.training.recipe.recipe import Recipe
from sentifactory.training.run.checkpoints import LOCK_NAME, remove_incomplete
from sentifactory.training.run.collectives import is_lost_connection
from sentifactory.training.run.progress_callback import ProgressCallback
from sentifactory.training.run.run_card import read_now, write_card
from sentifactory.training.run.trainer_errors import LLAMAFACTORY, Trainer, explain_failure
from sentifactory.training.run.trainer_output import LOG_NAMES


@contextmanager
def record_run(
    recipe: Recipe, card: dict[str, Any], output_dir: Path, progress: ProgressCallback, trainer: Trainer = LLAMAFACTORY
) -> Iterator[None]:
    """Write the final run card however the block ends.

    Raises:
        ConfigError: in place of an exception of the block that the user can fix.
    """
    start_s = time.monotonic()
    try:
        yield
        card["status"] = "finished"
        note_kept(output_dir)
    except BaseException as error:
        is_lost = is_lost_connection(error)
        card["status"] = "interrupted" if is_lost or isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
        card["error"] = mask_text(" ".join(str(error).split()))[:2000] or type(error).__name__
        if is_lost:
            card["error"] = "Another process of the run ended."
        if is_main_process():
            remove_incomplete(output_dir)  # frees space for the run card on a full disk
        explained = None
        if isinstance(error, Exception):
            explained = explain_failure(error, recipe, has_begun=progress.has_begun, trainer=trainer)
        if explained is not None:
            raise explained from error
        raise
    finally:
        card["wall_time_s"] = round(time.monotonic() - start_s, 3)
        card["finished_at"] = read_now()
        card["memory"] = measure_peak_memory()
        if is_main_process() and (progress.has_begun or card["status"] == "finished"):
            write_card(output_dir, card)


def remove_if_unused(output_dir: Path) -> None:
    """Remove an output folder that contains nothing but the lock and the log."""
    ours = [output_dir / name for name in (LOCK_NAME, *LOG_NAMES)]
    if {*output_dir.iterdir()} <= {*ours}:
        with suppress(OSError):
            for path in ours:
                path.unlink(missing_ok=True)
            output_dir.rmdir()
