"""What pytest does otherwise while mutmut watches: mutmut loads this module into it by `-p`.

While mutmut notes which test calls which function, it marks the environment, and its marks make processes that tests
start look for mutmut's settings in folders of theirs and fail. So those processes run unmarked: a function that a test
reaches in another process alone counts as not covered. When a mutant is tested, they run the mutant as well.

Tests with drawn examples (hypothesis) draw the same ones each time, however long that takes: the same mutants get the
same score again, and the marks, which slow every call, fail no test.

mutmut loses what pytest says of a test that fails without a mutant: it is written to the file that LOG_VARIABLE names.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

LOG_VARIABLE = "SENTIFACTORY_MUTATION_LOG"


def pytest_configure() -> None:
    """Take the mark off the environment; mutmut keeps a copy of it in this process."""
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "mutation", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("mutation")
    if os.environ.get("MUTANT_UNDER_TEST") == "stats":
        del os.environ["MUTANT_UNDER_TEST"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the quickest tests of a mutant begin: most mutants die by one of them."""
    from mutmut.state import state

    items.sort(key=lambda item: state().duration_by_test.get(item.nodeid, 0.0))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write down how a test fails that no mutant makes fail."""
    from mutmut.mutation.trampoline import get_mutant_under_test

    if report.failed and get_mutant_under_test() in ("", "stats"):
        with open(os.environ[LOG_VARIABLE], "a", encoding="utf-8") as log:
            log.write(f"\n{report.nodeid}\n{report.longreprtext}\n")
