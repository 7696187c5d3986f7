"""The task in a model's folder comes back as it was written, also with an earlier prompt of a built-in name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sentifactory.errors import ConfigError
from sentifactory.task.model_folder import TASK_NAME, read_model_task, write_model_task
from sentifactory.task.task import BINARY_SENTIMENT, Task
from sentifactory.task.task_file import load_task


def test_tasks_come_back(tmp_path: Path, repo_root: Path) -> None:
    assert read_model_task(tmp_path) is None
    for task in (BINARY_SENTIMENT, load_task(repo_root / "examples" / "tasks" / "three_classes.yaml")):
        write_model_task(task, tmp_path)
        assert read_model_task(tmp_path) == task


def test_a_task_that_was_changed_after_training_is_refused(tmp_path: Path) -> None:
    path = write_model_task(BINARY_SENTIMENT, tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace("负面为0", "负面为1"), encoding="utf-8")
    with pytest.raises(ConfigError, match="changed after training") as caught:
        read_model_task(tmp_path)
    assert caught.value.code == "model-task-changed"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["sha256"]  # as older versions wrote it
    path.write_text(json.dumps(content), encoding="utf-8")
    assert read_model_task(tmp_path) is not None


def test_an_earlier_prompt_of_a_built_in_task_keeps_its_words(tmp_path: Path) -> None:
    earlier: Task = replace(BINARY_SENTIMENT, prompt_template="旧的提示词，回答 0 或 1：{text}")
    write_model_task(earlier, tmp_path)
    found = read_model_task(tmp_path)
    assert found is not None
    assert found.prompt_template == earlier.prompt_template
    assert found.name != BINARY_SENTIMENT.name


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 9, "task": {}}', '{"version": 1, "task": {"name": "x"}}'])
def test_a_file_that_cannot_be_used_is_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / TASK_NAME).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_model_task(tmp_path)
    assert str(tmp_path / TASK_NAME) in caught.value.where


def test_the_file_runs_nothing_and_is_readable(tmp_path: Path) -> None:
    content = json.loads(write_model_task(BINARY_SENTIMENT, tmp_path).read_text(encoding="utf-8"))
    assert content["task"]["prompt"] == BINARY_SENTIMENT.prompt_template
