"""The Chromium of this machine, for tests of pages; they are passed over where there is none."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import pytest

from tools.docs.chromium import CHROMIUM

WHERE_A_BROWSER_IS = pytest.mark.skipif(
    CHROMIUM is None or not importlib.util.find_spec("playwright"), reason="needs Chromium and the package playwright"
)
IN_A_BROWSER = [pytest.mark.browser, pytest.mark.slow, WHERE_A_BROWSER_IS]


def open_page(browser: Any, address: str, **options: Any) -> Any:
    """Open an address in a new page whose failed requests and errors are printed: pytest shows them when a test fails.

    Args:
        browser: of `tools.docs.chromium.open_browser`.
        address: of the page.
        options: of playwright's `new_page`.
    """
    page = browser.new_page(**options)
    page.on("console", lambda message: print(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda error: print(f"error on the page: {error} {error.stack}"))
    page.on("requestfailed", lambda request: print(f"failed: {request.url} {request.failure}"))
    page.on("response", lambda response: response.ok or print(f"{response.status}: {response.url}"))
    load_page(page, address)
    return page


def load_page(page: Any, address: str) -> None:
    """Load the web page of `sentifactory ui` into a page of playwright, and wait until its tabs are drawn."""
    page.goto(address)
    page.locator("[role=tab]").first.wait_for(state="attached")


def take_picture(page: Any, name: str) -> None:
    """Keep a picture for a person to look at, where UI_PICTURES names a folder."""
    if folder := os.environ.get("UI_PICTURES"):
        page.wait_for_timeout(800)
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)
