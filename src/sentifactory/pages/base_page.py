"""The template environment of all pages, and the colours of their style sheet for pictures drawn elsewhere.

Templates escape everything; an undefined name raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def build_environment(package: str, **filters: Callable[..., Any]) -> Environment:
    """Return the templates of a package, and those that all pages share (`base.css`, `base.html.j2`).

    Args:
        package: the package that has a folder `templates`, such as `sentifactory.corpus.inspection`.
        filters: the package's own template filters.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("sentifactory.pages")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(keep_together=keep_together, shorten_hash=lambda text: text[:12], **filters)
    return environment


def keep_together(text: str) -> str:
    """Return a sentence whose p-values cannot be broken across lines.

    Example:
        >>> keep_together("(p = 0.84)") == "(p\u00a0=\u00a00.84)"
        True
    """
    return text.replace("p = ", "p\u00a0=\u00a0").replace("p < ", "p\u00a0<\u00a0")


def read_palette() -> dict[str, str]:
    """Return the colours of the light theme by name.

    Example:
        >>> read_palette()["tuned"]
        '#0f766e'
    """
    style = (files("sentifactory.pages") / "templates" / "base.css").read_text(encoding="utf-8")
    light = style[: style.index("}")]
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", light))
