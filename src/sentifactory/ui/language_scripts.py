"""The scripts that set and switch the language in the browser: of our texts, and of gradio's own.

Gradio has translations of its drop zones, progress and buttons, and takes them by the browser's language. One of its
modules exports the function with which its settings change that; the page calls it for the language that is chosen.
"""

from __future__ import annotations

import re
from importlib.resources import files

# Gradio's names of our languages.
_LOCALES = "{en: 'en', zh: 'zh-CN'}"
_EXPORT = re.compile(r"\bas changeLocale\b")
_SET = """document.body.dataset.language = language;
  document.documentElement.lang = language;
  const module = "MODULE";
  if (module) import(new URL(module, document.baseURI)).then((gradio) => gradio.changeLocale(LOCALES[language]));
  return [language];
}"""
# The language that was chosen last, otherwise the browser's.
_FIRST = """() => {
  const chosen = localStorage.getItem("sentifactory-language");
  const language = chosen || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
  """
_NEW = """(language) => {
  localStorage.setItem("sentifactory-language", language);
  """


def write_scripts() -> tuple[str, str]:
    """Return the script for when the page is loaded, and the one for when another language is chosen."""
    switch = _SET.replace("MODULE", find_locale_module()).replace("LOCALES", _LOCALES)
    return _FIRST + switch, _NEW + switch


def find_locale_module() -> str:
    """Return the address of gradio's module that exports `changeLocale`, relative to the page.

    "" where this version of gradio has none: then its own texts keep the browser's language.
    """
    assets = files("gradio") / "templates" / "frontend" / "assets"
    for file in assets.iterdir():
        is_module = file.name.startswith("index-") and file.name.endswith(".js")
        if is_module and _EXPORT.search(file.read_text(encoding="utf-8")):
            return f"./assets/{file.name}"
    return ""
