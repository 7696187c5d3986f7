"""A function in a process of its own: its result, its errors, its death, and the end of its parent."""

from __future__ import annotations

import os
import signal

import pytest

from sentifactory.errors import ConfigError, EngineError
from sentifactory.system.own_process import call_in_own_process
from sentifactory.system.supervisor import list_descendants


def double(number: int) -> tuple[int, int]:
    return 2 * number, os.getpid()


def fail(kind: str) -> None:
    if kind == "ours":
        raise ConfigError("It is wrong", where="here", code="test-code")
    if kind == "other":
        raise ZeroDivisionError
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_result_is_of_another_process_that_has_ended() -> None:
    result, process = call_in_own_process(double, 21)
    assert result == 42
    assert process != os.getpid()
    assert process not in list_descendants(os.getpid())


def test_errors_come_back_as_they_are() -> None:
    with pytest.raises(ConfigError) as found:
        call_in_own_process(fail, "ours")
    assert (found.value.code, found.value.where) == ("test-code", "here")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        call_in_own_process(fail, "other")


def test_a_killed_process_is_an_engine_that_failed() -> None:
    with pytest.raises(EngineError) as found:
        call_in_own_process(fail, "killed")
    assert found.value.code == "engine-ended"
