"""Tells the program that started this command what the command is doing, through a file which that program names.

The page names one in SENTIFACTORY_PROGRESS_FILE for the training that it starts, and shows its content. The run card
cannot tell it: it is written from the first step on, and loading a model or computing its frozen layers comes before.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

from sentifactory.bilingual import Sentence
from sentifactory.errors import ConfigError, SentiFactoryError
from sentifactory.system.atomic import write_json
from sentifactory.system.json_text import read_json_object
from sentifactory.system.ranks import is_main_process
from sentifactory.system.stop_signals import forget_kept

PROGRESS_VARIABLE = "SENTIFACTORY_PROGRESS_FILE"
EVERY_S = 0.5  # between two writes within a phase

_state: dict[str, Any] = {}
_written_s = 0.0


def begin_phase(phase: Sentence, total: int | None = None, done: int = 0) -> None:
    """Write that a phase of the command begins; does nothing where no file is named.

    Args:
        phase: what the command does now, as a clause.
        total: number of units; None if unknown.
        done: units that are done already.
    """
    _state.clear()
    _state.update(phase={"en": phase.en, "zh": phase.zh}, total=total, done=done, left_s=None)
    _write()


def count_done(done: int, left_s: float | None = None) -> None:
    """Write how many units of the phase are done.

    Args:
        done: by now.
        left_s: estimated time until the command ends.
    """
    if not _state:
        return
    _state.update(done=done, left_s=left_s)
    if time.monotonic() - _written_s >= EVERY_S or done == _state["total"]:
        _write()


def end_with(error: Exception) -> None:
    """Write that the command ends with an error, so that the program that started it can say so in its own words."""
    failure = {"what": str(error), "where": "", "code": "defect"}
    if isinstance(error, SentiFactoryError):
        failure = {"what": error.what, "where": error.where, "code": error.code}
    _state.update(failure=failure)
    _write()


def _write() -> None:
    global _written_s
    if (named := os.environ.get(PROGRESS_VARIABLE)) and is_main_process():
        _written_s = time.monotonic()
        with contextlib.suppress(OSError, ConfigError):  # a full disk stops a command where it matters, not here
            write_json(Path(named), {**_state, "written_at": time.time()})
        forget_kept(named)


def read_progress(file: Path) -> dict[str, Any] | None:
    """Return the content of a progress file; None where there is none, or something else is in it."""
    state = read_json_object(file) or {}
    phase = state.get("phase")
    has_phase = isinstance(phase, dict) and all(isinstance(phase.get(language), str) for language in ("en", "zh"))
    has_numbers = all(
        isinstance(state.get(name, ""), int | float | None) for name in ("done", "total", "left_s", "written_at")
    )
    return state if has_phase and has_numbers else None


def read_failure(file: Path) -> SentiFactoryError | None:
    """Return the error that a command ended with; None where it has not written one."""
    failure = (read_json_object(file) or {}).get("failure")
    what, where, code = (failure.get(key) if isinstance(failure, dict) else None for key in ("what", "where", "code"))
    if not (isinstance(what, str) and isinstance(where, str) and isinstance(code, str)):
        return None
    return SentiFactoryError(what, where=where, code=code)
