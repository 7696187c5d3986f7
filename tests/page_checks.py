"""Checks of a page as its reader has it: one language, the common style, nothing cut off, accessible, no errors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

WIDTHS = (1280, 390)
LANGUAGES = ("en", "zh")
_WCAG = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}
_OTHER = {"en": "zh", "zh": "en"}
# Text elements of one language that have a place on the screen.
_COUNT_VISIBLE = """language => [...document.querySelectorAll("." + language)]
  .filter(element => element.getClientRects().length > 0).length"""
# Whatever is cut off at the right, or can be scrolled sideways.
_LIST_WIDE = """() => [...document.querySelectorAll("body *")].filter(element => {
  if (!element.getClientRects().length || element.closest("svg") && element.tagName != "svg") return false;
  const scrolls = ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
  return element.getBoundingClientRect().right > innerWidth + 1
    || scrolls && element.scrollWidth > element.clientWidth + 1;
}).map(element => `${element.tagName} ${element.className} ${element.textContent.trim().slice(0, 40)}`)"""


def find_faults(
    browser: Any, file: Path, language: str, width: int, pictures: Path, scheme: str = "light"
) -> list[str]:
    """Open a page and return what is wrong with it; keep a picture of it.

    Args:
        browser: of `tools.docs.chromium.open_browser`.
        file: the page.
        language: `en` or `zh`.
        width: of the window, in pixels.
        pictures: folder of the pictures.
        scheme: `light` or `dark`.
    """
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    errors = collect_errors(page)
    page.goto(file.as_uri())
    page.locator(f"label[for=choose-{language}]").click()
    faults = list_faults(page, language, width)
    keep_picture(page, f"{file.stem}_{width}_{language}_{scheme}", pictures)
    page.close()
    return errors + faults


def collect_errors(page: Any) -> list[str]:
    """Return a list that gets the errors of a page's scripts from now on."""
    errors: list[str] = []

    def note(message: Any) -> None:
        # Gradio closes its stream of events with an AbortError, which it logs if an event was just being read.
        if message.type == "error" and not message.text.startswith("AbortError"):
            errors.append(message.text)

    page.on("pageerror", lambda error: errors.append(f"script error: {error}"))
    page.on("console", note)
    return errors


def list_faults(page: Any, language: str, width: int) -> list[str]:
    """Return what is wrong with an open page.

    Args:
        page: shown in a language.
        language: `en` or `zh`.
        width: of its window, in pixels.
    """
    from axe_playwright_python.sync_playwright import Axe

    faults = []
    for name, is_wanted in ((language, True), (_OTHER[language], False)):
        n_visible = page.evaluate(_COUNT_VISIBLE, name)
        if (n_visible > 0) != is_wanted:
            faults.append(f"{n_visible} visible texts in {name}")
    if "system-ui" not in read_style(page, "body", "font-family"):
        faults.append("the font is not that of the project")
    if page.evaluate("document.documentElement.scrollWidth") > width:
        faults.append("the page is wider than the window")
    faults += [f"too wide: {words}" for words in page.evaluate(_LIST_WIDE)]
    found = Axe().run(page, options=_WCAG).response["violations"]
    return faults + [f"{one['id']}: {node['html'][:160]}" for one in found for node in one["nodes"][:3]]


def read_style(page: Any, selector: str, name: str) -> str:
    """Return a computed style of the first element that a selector finds."""
    return str(page.locator(selector).first.evaluate("(element, name) => getComputedStyle(element)[name]", name))


def keep_picture(page: Any, name: str, folder: Path) -> None:
    """Keep a picture for a person to look at, in the folder of the run or the one that UI_PICTURES names."""
    place = Path(os.environ.get("UI_PICTURES") or folder)
    place.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(place / f"{name}.png"), full_page=True)
