"""Stops a command at the function that does its work, to see what it was given."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from sentifactory.cli import build_app


class CaughtError(Exception):
    """Ends a command with what it was about to work with."""

    def __init__(self, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.given, self.named = given, named


def catch_call(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, words: str) -> CaughtError:
    """Return what a command gives to a function: in order as `given`, by name as `named`."""

    def raise_given(*given: Any, **named: Any) -> None:
        raise CaughtError(given, named)

    monkeypatch.setattr(module, name, raise_given)
    error = CliRunner().invoke(build_app(), words.split()).exception
    assert isinstance(error, CaughtError), error
    return error
