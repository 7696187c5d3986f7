"""The task that has the labels of a file, among those that come with the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentifactory.corpus.reading.review_files import read_reviews, read_source
from sentifactory.errors import DataError
from sentifactory.task.fitting_task import find_fitting_tasks
from sentifactory.task.task import BINARY_SENTIMENT

THREE = "three_classes"


@pytest.mark.parametrize("words", [("差评", "中评", "好评"), ("0", "1", "2"), ("negative", "neutral", "positive")])
@pytest.mark.parametrize("can_map", [True, False])
def test_a_file_of_three_classes_is_told_its_task(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], can_map: bool
) -> None:
    """In any folder: a command to copy, which keeps every review."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["sentifactory", "data", "prepare", "a.csv"])
    file = tmp_path / "a.csv"
    rows = "".join(f"第{number}次来，{word}\n" for number in range(20) for word in words)
    file.write_text("text,label\n" + rows.replace("，", ","), encoding="utf-8")
    with pytest.raises(DataError) as refused:
        read_source(file, BINARY_SENTIMENT) if can_map else read_reviews(file, BINARY_SENTIMENT)
    assert refused.value.next_step.endswith(f": sentifactory data prepare a.csv --task {THREE}")
    assert "label_map" not in refused.value.next_step
    assert "remove" not in refused.value.next_step


def test_a_task_must_know_every_word(monkeypatch: pytest.MonkeyPatch, repo_root: Path, tmp_path: Path) -> None:
    monkeypatch.chdir(repo_root)
    assert [name for name, _ in find_fitting_tasks(["负面", "中性", "好评"])] == [THREE]
    assert find_fitting_tasks(["负面", "中性"]) == [], "the task has a third label"
    assert find_fitting_tasks(["负面", "中性", "好评", "无所谓"]) == []
    assert find_fitting_tasks([]) == []
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples" / "tasks").mkdir(parents=True)
    (tmp_path / "examples" / "tasks" / "mine.yaml").write_text("not: a task", encoding="utf-8")
    assert [name for name, _ in find_fitting_tasks(["负面", "中性", "好评"])] == [THREE]
