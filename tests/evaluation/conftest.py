"""Fixtures for the comparison."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripted_comparison import (
    BASE_REPLIES,
    TEST_ROWS,
    TUNED_REPLIES,
    ScriptedEngine,
    Workplace,
    write_model,
    write_reviews,
)

from sentifactory.evaluation import compare
from sentifactory.task.task import Task


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A comparison whose engines are scripted: base has 2 of 6 right, 1 wrong, 3 unparsed; tuned has 5."""
    write_reviews(tmp_path / "test.csv", TEST_ROWS)
    write_model(tmp_path / "base_model")
    write_model(tmp_path / "tuned_model")
    place = Workplace(tmp_path, [], {"base": BASE_REPLIES, "tuned": TUNED_REPLIES})

    def build(kind: str, model: str, task: Task, *, name: str, **settings: object) -> ScriptedEngine:
        return ScriptedEngine(name, place.replies[name], place.journal, task)

    monkeypatch.setattr(compare, "build_engine", build)
    return place
