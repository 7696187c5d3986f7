"""Keeps transformers' bars out of our own progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hide_transformers_bars() -> Iterator[None]:
    """Load or save weights without transformers' bar: the caller's own line says what goes on."""
    from transformers.utils import logging

    has_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if has_bars:
            logging.enable_progress_bar()
