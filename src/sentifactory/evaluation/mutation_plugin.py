"""What pytest does otherwise while mutmut watches: mutmut loads this module into it by `-p`.

While mutmut notes which test calls which function, it marks the environment, and its marks make processes that tests
start look for mutmut's settings in folders of theirs and fail. So those processes run unmarked: a function that a test
reaches in another process alone counts as not covered. When a mutant is tested, they run the mutant as well.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_configure() -> None:
    """Take the mark off the environment; mutmut keeps a copy of it in this process."""
    if os.environ.get("MUTANT_UNDER_TEST") == "stats":
        del os.environ["MUTANT_UNDER_TEST"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the quickest tests of a mutant begin: most mutants die by one of them."""
    from mutmut.state import state

    items.sort(key=lambda item: state().duration_by_test.get(item.nodeid, 0.0))
