"""The page in a process of its own, with a password unless a test wants none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sentifactory.ui.page_settings import USER_NAME
from tools.docs.served_page import serve_page as start_page

PASSWORD = "correct-horse-battery"
RIGHT = {"username": USER_NAME, "password": PASSWORD}


def name_log(folder: Path) -> Path:
    """Return where `serve_page` writes what the page says; in the folder itself there is what the page writes."""
    return folder.with_name(f"{folder.name}.log")


@contextmanager
def serve_page(folder: Path, *options: str, password: str | None = PASSWORD) -> Iterator[str]:
    """Give the address of a page whose workspace is `space` in a folder; its log is beside the folder (`name_log`)."""
    with start_page("space", *options, folder=folder, log=name_log(folder), password=password) as address:
        yield address
