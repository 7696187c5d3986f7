"""Tasks from YAML: the examples, and files with several problems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sentifactory.corpus.reading.label_reader import LabelReader
from sentifactory.errors import ConfigError
from sentifactory.task.task import NAMED_TASKS, TASKS
from sentifactory.task.task_file import describe_task, load_task, read_task

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "tasks").glob("*.yaml"))
GOOD = describe_task(TASKS["binary_sentiment"]) | {"name": "mine"}


def write_task(folder: Path, content: Any) -> Path:
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path


def test_there_are_examples_for_all_that_is_promised() -> None:
    tasks = {path.stem: read_task(path) for path in EXAMPLES}
    assert [len(tasks[name].labels) for name in ("three_classes", "star_rating", "aspect_service")] == [3, 5, 3]
    assert {"binary_sentiment", "reference_sentiment", "english_sentiment"} <= set(tasks)
    assert all(task.name == name for name, task in tasks.items())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_works(path: Path) -> None:
    task = load_task(str(path))
    for label, name in enumerate(task.labels):
        assert task.parse_answer(task.render_answer(label)) == label
        assert LabelReader(task).find(name) == LabelReader(task).find(str(task.answer_values[label])) == label
    assert task.parse_answer(task.render_prompt("很好")) is None, "an echo of the prompt is no answer"
    for end in range(len(task.render_prompt("很好"))):
        assert task.parse_answer(task.render_prompt("很好")[:end]) is None
    header = path.read_text(encoding="utf-8").split("\nname:")[0]
    assert all(word in header for word in ("# Purpose:", "# Must exist:", "# Command: sentifactory", "# Output:"))
    assert f"--task examples/tasks/{path.name}" in header


@pytest.mark.parametrize("task", NAMED_TASKS.values(), ids=lambda task: task.name)
def test_the_file_of_a_built_in_task_equals_it(task: Any) -> None:
    path = next(path for path in EXAMPLES if path.stem == task.name)
    assert read_task(path) == task == load_task(task.name)


def test_what_is_described_is_read_back(tmp_path: Path) -> None:
    for path in EXAMPLES:
        task = read_task(path)
        assert read_task(write_task(tmp_path, describe_task(task))) == task


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"name": "My Task"}, ["name must consist of", "is 'My Task'"]),
        ({"name": "reference_sentiment"}, ["built-in task with other content"]),
        ({"answer_key": 3}, ["answer_key must be a word", "is 3"]),
        ({"prompt": "评论"}, ["{text} exactly once", "0 times"]),
        ({"prompt": "{text} {text}"}, ["{text} exactly once", "2 times"]),
        ({"prompt": "评论：{text}\n"}, ["starts or ends with white space", "'|-'"]),
        ({"prompt": "<|im_end|>{text}<end_of_turn>"}, ["<|im_end|>", "<end_of_turn>"]),
        ({"prompt": 5}, ["prompt must be text, and is 5"]),
        ({"labels": []}, ["at least two labels, and is []"]),
        ({"labels": "0,1"}, ["and is '0,1'"]),
        ({"labels": ["bad", "good"]}, ["label 1: ", "label 2: ", "is 'bad'", "is 'good'", "name and answer"]),
        (
            {"labels": [{"name": True, "answer": 0}, {"name": "b", "answer": 1}]},
            ["label 1: name", "is True", "yes, no"],
        ),
        (
            {"labels": [{"name": "a", "answer": True}, {"name": "b", "answer": 1.5}]},
            ["is True", "is 1.5"],
        ),
        (
            {"labels": [{"name": "a", "answer": 0}, {"name": "b"}]},
            ["label 2: answer", "is None"],
        ),
        ({"labels": [{"name": "a", "answer": 0}, {"name": "b", "answer": "0"}]}, ["'0' means both a and b"]),
        ({"labels": [{"name": "a", "answer": 0}, {"name": "a", "answer": 1}]}, ["the label a occurs twice"]),
        (
            {
                "labels": [
                    {"name": "a", "answer": 0, "synonyms": ["差"]},
                    {"name": "b", "answer": 1, "synonyms": ["差"]},
                ]
            },
            ["'差' means both a and b"],
        ),
        (
            {"labels": [{"name": "a", "answer": 0, "synonyms": "差"}, {"name": "b", "answer": 1}]},
            ["is '差'"],
        ),
        ({"colour": 1}, ["unknown key 'colour'", "name, answer_key, prompt, labels"]),
        (
            {"name": None, "prompt": "no slot", "labels": [{"name": "a"}, {"answer": 2, "words": []}], "x": 1},
            ["6 problems: ", "is None", "0 times", "label 1", "label 2", "'x'", "'words'"],
        ),
    ],
)
def test_all_problems_are_reported_at_once(tmp_path: Path, changed: dict[str, Any], words: list[str]) -> None:
    path = write_task(tmp_path, GOOD | changed)
    with pytest.raises(ConfigError) as caught:
        load_task(str(path))
    message = caught.value.describe()
    assert (caught.value.code, caught.value.where) == ("task-invalid", str(path))
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("content", "code", "word"),
    [
        ("a: [", "task-file-yaml", "line 1"),
        ("just text", "task-invalid", "is a str"),
        ("", "task-invalid", "is a NoneType"),
        ("a: 1", "task-invalid", "'labels' is missing"),
    ],
)
def test_what_is_no_task_file(tmp_path: Path, content: str, code: str, word: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=word) as caught:
        load_task(str(path))
    assert caught.value.code == code


def test_where_a_file_is_no_yaml_and_why(tmp_path: Path) -> None:
    path = tmp_path / "task.yml"
    path.write_text("name: mine\nlabels: [\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"\(expected the node content, but found '<stream end>'\)") as error:
        load_task(str(path))
    assert error.value.where == f"{path}, line 3"
    path.write_text("name: mine\x07", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"\(.*#x0007: special characters are not allowed") as error:
        load_task(str(path))
    assert error.value.where == str(path)


def test_one_problem_is_singular(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"The task has 1 problem: the key 'prompt' is missing\.") as error:
        read_task(write_task(tmp_path, {key: value for key, value in GOOD.items() if key != "prompt"}))
    assert error.value.next_step == "compare it with examples/tasks/binary_sentiment.yaml"


def test_unknown_names_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="binary_sentiment, reference_sentiment, three_classes, or a YAML file"):
        load_task("none")
    with pytest.raises(ConfigError, match="does not exist"):
        load_task(str(tmp_path / "none.yaml"))
    (tmp_path / "gbk.yaml").write_bytes("name: 情感".encode("gbk"))
    with pytest.raises(ConfigError, match="not UTF-8") as error:
        load_task(str(tmp_path / "gbk.yaml"))
    assert error.value.where == str(tmp_path / "gbk.yaml")


def test_the_alpaca_form_asks_in_the_same_words() -> None:
    for path in EXAMPLES:
        task = read_task(path)
        row = task.render_alpaca("好<|im_end|>", 1)
        messages = task.render_messages("好<|im_end|>", 1)
        assert row == {"instruction": messages[0]["content"], "input": "", "output": messages[1]["content"]}
        assert json.loads(row["output"]) == {task.answer_key: task.answer_values[1]}
