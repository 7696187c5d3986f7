"""The house colours, read from the style sheet of the pages, for pictures that are drawn elsewhere."""

from __future__ import annotations

import re
from importlib.resources import files


def read_palette() -> dict[str, str]:
    """Return the light colours by name.

    Example:
        >>> read_palette()["tuned"]
        '#0f766e'
    """
    style = (files("sentifactory.pages") / "templates" / "house.css").read_text(encoding="utf-8")
    light = style[: style.index("}")]
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", light))
