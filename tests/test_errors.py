"""Errors have a stable code, by class or explicit, which survives pickling and is not shown."""

from __future__ import annotations

import pickle

import pytest

from sentifactory.errors import ConfigError, DataError, EngineError, LeakError, SentiFactoryError


@pytest.mark.parametrize(
    ("kind", "code"), [(DataError, "data"), (LeakError, "leak"), (ConfigError, "config"), (EngineError, "engine")]
)
def test_an_error_has_the_code_of_its_kind_or_its_own(kind: type[SentiFactoryError], code: str) -> None:
    assert kind("It is broken").code == code
    error = kind("It is broken", where="a.csv, line 3", expected="a whole one", next_step="repair it", code="broken")
    assert error.code == "broken"
    assert kind.code == code
    assert str(error) == error.describe() == "a.csv, line 3: It is broken. Expected: a whole one. Next: repair it."
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - just written
    assert (type(again), vars(again)) == (kind, vars(error))
