"""The Chromium of this machine, for tests of pages; they are passed over where there is none."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WHERE_A_BROWSER_IS = pytest.mark.skipif(
    _CHROMIUM is None or not importlib.util.find_spec("playwright"), reason="needs Chromium and the package playwright"
)
IN_A_BROWSER = [pytest.mark.browser, pytest.mark.slow, WHERE_A_BROWSER_IS]


@contextmanager
def open_browser() -> Iterator[Any]:
    """Give a headless Chromium, as playwright drives it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
