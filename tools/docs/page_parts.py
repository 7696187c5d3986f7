"""Replaces generated parts of a page; the text around them is written by hand.

A part begins with `<!-- begin NAME ... -->` and ends with `<!-- end NAME -->`, each on a separate line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sentifactory.errors import ConfigError


def replace_part(page: str, name: str, body: str, where: str) -> str:
    r"""Return a page with the text of one of its parts replaced.

    Args:
        page: the whole page.
        name: the part.
        body: the new text between the marks.
        where: the name of the page, for errors.

    Raises:
        ConfigError: if the page does not contain the part exactly once.

    Example:
        >>> replace_part("a\n<!-- begin b -->\nold\n<!-- end b -->\nc", "b", "new", "page.md")
        'a\n<!-- begin b -->\nnew\n<!-- end b -->\nc'
    """
    marks = re.compile(rf"(<!-- begin {re.escape(name)}\b[^\n]*-->\n).*?(<!-- end {re.escape(name)} -->)", re.DOTALL)
    changed, count = marks.subn(lambda found: f"{found[1]}{body.strip()}\n{found[2]}", page)
    if count != 1:
        raise ConfigError(
            f"The part {name} occurs {count} times in the page",
            where=where,
            expected=f"once: <!-- begin {name} -->, and a line <!-- end {name} --> after it",
            next_step="fix the marks",
        )
    return changed


def name_machine(machine: Mapping[str, Any]) -> str:
    """Describe the machine of a report for a caption."""
    return f"{machine['processor']}, {machine['cores']} cores"
