"""What is said about machines whose recipe, model, data, code or packages differ."""

from __future__ import annotations

from typing import Any

from sentifactory.training.run.collectives import describe_unlike


def describe(number: int, **facts: int) -> dict[str, Any]:
    return {"machine": f"machine {number}", "facts": {"recipe": 0, "model": 0, "data": 0} | facts}


def test_like_machines_need_no_words() -> None:
    assert describe_unlike([describe(0), describe(1)]) == ""


def test_every_unlike_machine_is_named_with_what_differs() -> None:
    found = [describe(0), describe(1, data=1), describe(2), describe(3, data=2), describe(4, model=1, data=1)]
    assert describe_unlike(found) == (
        "machine 1, machine 3 differ from machine 0 in: data; machine 4 differs from machine 0 in: model, data"
    )
