"""Fills in the templates of a page: everything is escaped, and a name that is not there is a defect."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def build_environment(room: str, **filters: Callable[..., Any]) -> Environment:
    """Return the templates of a room, and behind them those that all pages share (`house.css`, `house.html.j2`).

    Args:
        room: the package whose folder `templates` is meant, such as `sentifactory.corpus`.
        filters: what the room's templates use besides Jinja's own filters.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(room), PackageLoader("sentifactory.pages")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(keep_together=keep_together, shorten_hash=lambda text: text[:12], **filters)
    return environment


def keep_together(text: str) -> str:
    """Return a sentence in which a p-value is never broken over two lines.

    Example:
        >>> keep_together("(p = 0.84)") == "(p\u00a0=\u00a00.84)"
        True
    """
    return text.replace("p = ", "p\u00a0=\u00a0").replace("p < ", "p\u00a0<\u00a0")
