"""What the page tells of what went wrong: a person's mistake in words, of a defect only that there is one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from sentifactory.errors import SentiFactoryError
from sentifactory.publishing.places import hide_places


def tell_mistakes(action: Callable[..., Any]) -> Callable[..., Any]:
    """Return an action whose mistakes are told on the page; who sees it need not have a look at this machine."""
    import gradio

    @functools.wraps(action)
    def run(*chosen: Any) -> Any:
        try:
            return action(*chosen)
        except SentiFactoryError as error:
            raise gradio.Error(hide_places(error.describe()), duration=None, print_exception=False) from error

    return run
