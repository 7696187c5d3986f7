"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import sentifactory

pytestmark = pytest.mark.slow


def test_the_examples_in_docstrings_are_true() -> None:
    found = [name for _, name, _ in pkgutil.walk_packages(sentifactory.__path__, "sentifactory.")]
    results = {name: doctest.testmod(importlib.import_module(name)) for name in found if not name.endswith("__main__")}
    assert sum(result.attempted for result in results.values()) > 100
    assert [name for name, result in results.items() if result.failed] == []
