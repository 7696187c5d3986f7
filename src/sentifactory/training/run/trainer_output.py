"""Redirects the output of a trainer from the terminal and stdout into a log file in the output folder."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TextIO

from sentifactory.system.file_lock import refuse_links
from sentifactory.system.ranks import is_main_process

LOG_NAME = "llamafactory.log"
ENCODER_LOG_NAME = "trainer.log"
LOG_NAMES = (LOG_NAME, ENCODER_LOG_NAME)


@contextmanager
def divert_stdout(stream: TextIO) -> Iterator[None]:
    """Redirect everything written to stdout, also by C libraries, to another open file."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(_find_descriptor(stream), 1)
    try:
        # The file descriptor for output of C libraries, and sys.stdout because it may not be that descriptor.
        with redirect_stdout(stream):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


def _find_descriptor(stream: TextIO) -> int:
    """Return the file descriptor of a stream, or that of stderr where it has none."""
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return 2


@contextmanager
def capture_trainer_output(log_file: Path | None) -> Iterator[None]:
    """Write the output and logs of LLaMA-Factory and transformers to a file, or to stderr for None.

    LLaMA-Factory logs to stdout and transformers to stderr. Python warnings and tracebacks stay on stderr.
    """
    if log_file is None:
        with divert_stdout(sys.stderr), point_log_handlers(sys.stderr):
            yield
        return
    with (
        open(log_file, "a", encoding="utf-8", errors="backslashreplace", buffering=1, opener=refuse_links) as stream,
        divert_stdout(stream),
        point_log_handlers(stream),
    ):
        yield


@contextmanager
def point_log_handlers(stream: TextIO) -> Iterator[None]:
    """Make the loggers of LLaMA-Factory and transformers write to a stream within the block."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.enable_default_handler()
    handlers = [
        handler
        for name in ("transformers", "llamafactory")
        for handler in logging.getLogger(name).handlers
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
    ]
    previous = [handler.stream for handler in handlers]
    verbosity = transformers_logging.get_verbosity()
    # Not `setStream`: it flushes the previous stream, which may be closed.
    for handler in handlers:
        handler.stream = stream
    try:
        yield
    finally:
        for handler, own in zip(handlers, previous, strict=True):
            handler.stream = own
        transformers_logging.set_verbosity(verbosity)  # LLaMA-Factory changes it


def disable_progress_bars() -> None:
    """Disable the progress bars of transformers and datasets where stderr is not a terminal of the main process."""
    if sys.stderr.isatty() and is_main_process():
        return
    import datasets
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
