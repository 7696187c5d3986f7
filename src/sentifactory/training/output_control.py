"""Keeps LLaMA-Factory's chatter off the terminal and off stdout, in a file beside the checkpoint."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TextIO

from sentifactory.file_lock import refuse_links

LOG_NAME = "llamafactory.log"
ENCODER_LOG_NAME = "trainer.log"
LOG_NAMES = (LOG_NAME, ENCODER_LOG_NAME)


@contextmanager
def divert_stdout(stream: TextIO) -> Iterator[None]:
    """Send everything that is written to stdout to another open file, from C libraries as well."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(_find_descriptor(stream), 1)
    try:
        # Both: the file descriptor for what is not Python, and the name for a sys.stdout that is not the descriptor.
        with redirect_stdout(stream):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


def _find_descriptor(stream: TextIO) -> int:
    """Return the file descriptor of a stream, or stderr's where the stream is none of the system's."""
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return 2


@contextmanager
def collect_chatter(log_file: Path | None) -> Iterator[None]:
    """Write what LLaMA-Factory and transformers print and log to a file; None sends all of it to stderr.

    LLaMA-Factory logs to stdout and transformers to stderr. Warnings of Python and tracebacks stay on stderr.
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
    """Let the loggers of LLaMA-Factory and transformers write to a stream for a while."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.enable_default_handler()
    handlers = [
        handler
        for name in ("transformers", "llamafactory")
        for handler in logging.getLogger(name).handlers
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
    ]
    former = [handler.stream for handler in handlers]
    verbosity = transformers_logging.get_verbosity()
    # Not `setStream`: it flushes the former stream, which may have been closed meanwhile.
    for handler in handlers:
        handler.stream = stream
    try:
        yield
    finally:
        for handler, own in zip(handlers, former, strict=True):
            handler.stream = own
        transformers_logging.set_verbosity(verbosity)  # LLaMA-Factory raises it


def quieten_progress_bars() -> None:
    """Switch the bars of transformers and datasets off where they would fill a log with half lines."""
    if sys.stderr.isatty():
        return
    import datasets
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
