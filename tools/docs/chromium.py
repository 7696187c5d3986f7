"""The Chromium of this machine, as playwright drives it: for pictures of the pages and for tests of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sentifactory.errors import ConfigError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Without a graphics card its process only adds waiting, and a container's /dev/shm can be too small for a page.
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@contextmanager
def open_browser() -> Iterator[Any]:
    """Give a headless Chromium.

    Raises:
        ConfigError: when there is none on this machine.
    """
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        raise ConfigError("There is no Chromium on this machine", next_step="install it (Debian: chromium)")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()
