"""Keeps transformers' bars out of our own progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hide_loading_bars() -> Iterator[None]:
    """Load weights without transformers' bar: the caller's own line says that a model is loaded."""
    from transformers.utils import logging

    has_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if has_bars:
            logging.enable_progress_bar()
