"""YAML that would grow beyond measure is refused at once, whatever it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentifactory.errors import ConfigError
from sentifactory.task.task import TASKS
from sentifactory.task.task_file import describe_task, load_task, read_task
from sentifactory.training.recipe.recipe import load_recipe
from sentifactory.training.sweep.search_space import read_space

_MULTIPLIED = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
_ENDLESS = {
    "brackets": "a: " + "[" * 20_000 + "]" * 20_000,
    "blocks": "- " * 20_000 + "x",
    "braces": "a: " + "{b: " * 20_000,
    "aliases": _MULTIPLIED,
    "a circle": "a: &a [*a]\n",
    "a number": f"a: {'1' * 5000}\n",
    "a hexadecimal number": f"a: 0x{'f' * 5000}\n",
    "a number of base 60": f"a: 1{':1' * 5000}\n",
    "values": "a: [" + "1, " * 30_000 + "1]\n",
    "size": "# " + "x" * (1 << 20),
}


@pytest.mark.parametrize("content", _ENDLESS.values(), ids=_ENDLESS)
@pytest.mark.parametrize("read", [read_task, load_recipe, lambda path: read_space(path, [])])
def test_endless_yaml_is_refused(tmp_path: Path, content: str, read) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert caught.value.where.startswith(str(path))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["brackets", "a number"])
def test_words_of_the_command_line_are_yaml_too(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("stage: sft\n", encoding="utf-8")
    with pytest.raises(ConfigError):
        load_recipe(path, ["a=" + _ENDLESS[name].removeprefix("a: ").strip()])
    with pytest.raises(ConfigError):
        read_space(None, ["a=" + _ENDLESS[name].removeprefix("a: ").strip()])


def test_aliases_that_stay_few_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("all: &all [q_proj, v_proj]\nlora_target: *all\n", encoding="utf-8")
    assert load_recipe(path).settings["lora_target"] == ["q_proj", "v_proj"]


def _write_task(path: Path, **changes: object) -> Path:
    import yaml

    content = describe_task(TASKS["binary_sentiment"]) | {"name": "other"} | changes
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path


def test_a_task_of_its_own_is_read(tmp_path: Path) -> None:
    assert load_task(_write_task(tmp_path / "a.yaml")).name == "other"


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"labels": [{"name": f"l{n}", "answer": n} for n in range(3000)]},
        {"labels": [{"name": "unsure", "answer": 0}, {"name": "b", "answer": 1}]},
        {"labels": [{"name": "a", "answer": 0}, {"name": "Bad_Rows", "answer": 1}]},
        {"labels": [{"name": "a", "answer": 0}, {"name": "rows", "answer": 1}]},
        {"labels": [{"name": "a", "answer": 10**20}, {"name": "b", "answer": 1}]},
        {"labels": [{"name": "a" * 1000, "answer": 0}, {"name": "b", "answer": 1}]},
        {"labels": [{"name": "a", "answer": "x" * 1000}, {"name": "b", "answer": "y"}]},
        {"labels": [{"name": "a", "answer": 0, "synonyms": ["x" * 1000]}, {"name": "b", "answer": 1}]},
        {"labels": [{"name": "a", "answer": 0, "synonyms": 7}, {"name": "b", "answer": 1}]},
        {"prompt": "x" * 200_000 + "{text}"},
        {"answer_key": "x" * 1000},
    ],
)
def test_tasks_beyond_measure_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    path = _write_task(tmp_path / "a.yaml", **changes)
    with pytest.raises(ConfigError) as caught:
        read_task(path)
    assert caught.value.where == str(path) or caught.value.where.startswith(f"{path}, line")
    assert len(str(caught.value)) < 1000
