"""Parts of a page that a command writes, between marks; what stands around them is written by hand.

A part begins with `<!-- begin NAME ... -->` and ends with `<!-- end NAME -->`, each on a line of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sentifactory.errors import ConfigError


def replace_part(page: str, name: str, body: str, where: str) -> str:
    r"""Return a page with other words in one of its parts.

    Args:
        page: the whole page.
        name: of the part.
        body: what is to stand between the marks.
        where: the page's name, for errors.

    Raises:
        ConfigError: when the page does not have the part just once.

    Example:
        >>> replace_part("a\n<!-- begin b -->\nold\n<!-- end b -->\nc", "b", "new", "page.md")
        'a\n<!-- begin b -->\nnew\n<!-- end b -->\nc'
    """
    marks = re.compile(rf"(<!-- begin {re.escape(name)}\b[^\n]*-->\n).*?(<!-- end {re.escape(name)} -->)", re.DOTALL)
    changed, count = marks.subn(lambda found: f"{found[1]}{body.strip()}\n{found[2]}", page)
    if count != 1:
        raise ConfigError(
            f"The part {name} stands {count} times in the page",
            where=where,
            expected=f"once: <!-- begin {name} -->, and a line <!-- end {name} --> after it",
            next_step="mend the marks",
        )
    return changed


def name_machine(machine: Mapping[str, Any]) -> str:
    """Return what a caption says of the machine that a report was made on."""
    return f"{machine['processor']}, {machine['cores']} cores"
