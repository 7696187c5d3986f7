"""The file in which a command says what it is doing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentifactory.bilingual import Sentence
from sentifactory.system.progress_file import PROGRESS_VARIABLE, begin_phase, count_done, read_progress

LOADING = Sentence("loading", "加载")


def test_the_program_that_named_a_file_reads_phase_count_and_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "progress.json"
    monkeypatch.setenv(PROGRESS_VARIABLE, str(file))
    begin_phase(LOADING, total=4)
    first = read_progress(file)
    count_done(4, left_s=0.5)
    last = read_progress(file)
    assert first is not None
    assert last is not None
    assert (first["phase"], first["done"], first["total"], first["left_s"]) == (
        {"en": "loading", "zh": "加载"},
        0,
        4,
        None,
    )
    assert (last["done"], last["left_s"]) == (4, 0.5)
    assert last["written_at"] >= first["written_at"]


def test_without_a_file_or_a_place_for_it_the_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROGRESS_VARIABLE, raising=False)
    begin_phase(LOADING)
    monkeypatch.setenv(PROGRESS_VARIABLE, str(tmp_path / "absent" / "a.json" / "b"))
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "a.json").write_text("a file, not a folder")
    begin_phase(LOADING, total=1)
    count_done(1)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"phase": "a"}', '{"phase": {"en": "a", "zh": "b"}, "done": "x"}']
)
def test_something_else_in_the_file_is_no_progress(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    assert read_progress(tmp_path / "a.json") is None
    assert read_progress(tmp_path / "absent.json") is None
