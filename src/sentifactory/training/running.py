"""What is the same around every training run: its end goes into the run card, whatever way it ends."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sentifactory.training.checkpoints import LOCK_NAME, remove_incomplete
from sentifactory.training.failures import LLAMAFACTORY, Trainer, explain_failure
from sentifactory.training.output_control import LOG_NAMES
from sentifactory.training.recipe import Recipe
from sentifactory.training.run_card import measure_peak_memory, read_now, write_card
from sentifactory.training.watching import RunWatcher


@contextmanager
def record_run(
    recipe: Recipe, card: dict[str, Any], output_dir: Path, watcher: RunWatcher, trainer: Trainer = LLAMAFACTORY
) -> Iterator[None]:
    """Write the last run card however the block ends.

    Raises:
        ConfigError: in place of what the block raised, when the user can mend it.
    """
    start_s = time.monotonic()
    try:
        yield
        card["status"] = "finished"
    except BaseException as error:
        card["status"] = "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
        card["error"] = " ".join(str(error).split())[:2000] or type(error).__name__
        if is_main_process():
            remove_incomplete(output_dir)  # on a full disk this makes room for the run card
        explained = None
        if isinstance(error, Exception):
            explained = explain_failure(error, recipe, has_begun=watcher.has_begun, trainer=trainer)
        if explained is not None:
            raise explained from error
        raise
    finally:
        card["wall_time_s"] = round(time.monotonic() - start_s, 3)
        card["finished_at"] = read_now()
        card["memory"] = measure_peak_memory()
        if is_main_process() and (watcher.has_begun or card["status"] == "finished"):
            write_card(output_dir, card)


def remove_if_unused(output_dir: Path) -> None:
    """Remove an output folder in which nothing but our lock and our log was written."""
    if {path.name for path in output_dir.iterdir()} <= {LOCK_NAME, *LOG_NAMES}:
        shutil.rmtree(output_dir, ignore_errors=True)


def is_main_process() -> bool:
    """Return whether this is the process that writes (rank 0, or the only one)."""
    return os.environ.get("RANK", "0") == "0"
