"""One rule for the task of everything: option, else model, else the manifest of the reviews, else binary sentiment."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sentifactory.errors import ConfigError
from sentifactory.task.model_folder import write_model_task
from sentifactory.task.task import BINARY_SENTIMENT, REFERENCE_SENTIMENT, Task
from sentifactory.task.task_choice import DATA, DEFAULT, MODEL, OPTION, choose_task, knows_labels
from sentifactory.task.task_file import record_task


def make_model(folder: Path, task: Task | None) -> str:
    folder.mkdir()
    if task is not None:
        write_model_task(task, folder)
    return str(folder)


def make_data(folder: Path, record: dict[str, Any] | None, **chapters: Any) -> str:
    folder.mkdir(parents=True)
    (folder / "test.csv").write_text("label,text\n1,好\n", encoding="utf-8")
    if record is not None:
        (folder / "manifest.json").write_text(json.dumps({"task": record, **chapters}), encoding="utf-8")
    return str(folder / "test.csv")


def test_the_order_of_precedence(tmp_path: Path, three: Task, three_file: str) -> None:
    model, data = make_model(tmp_path / "model", three), make_data(tmp_path / "data", record_task(three))
    bare, plain = make_model(tmp_path / "bare", None), make_data(tmp_path / "plain", None)
    asked = choose_task(three_file, models=[model, bare], data=[data])
    assert (asked.task, asked.source, asked.unfamiliar) == (three, OPTION, ())
    taught = choose_task(models=[bare, model], data=[data, plain])
    assert (taught.task, taught.source, taught.where) == (three, MODEL, model)
    prepared = choose_task(models=[bare], data=[plain, data])
    assert (prepared.task, prepared.source) == (three, DATA)
    assert prepared.where == str(tmp_path / "data" / "manifest.json")
    fallen = choose_task(models=[bare, str(tmp_path / "nowhere"), plain], data=[plain, "nowhere.csv"])
    assert (fallen.task, fallen.source) == (BINARY_SENTIMENT, DEFAULT)


def test_a_task_that_contradicts_the_models_is_refused(tmp_path: Path, three: Task) -> None:
    model = make_model(tmp_path / "model", three)
    for option in ("binary_sentiment", "reference_sentiment"):
        with pytest.raises(ConfigError, match="three_classes") as caught:
            choose_task(option, models=[model])
        assert caught.value.code == "task-conflict"
    with pytest.raises(ConfigError, match="another prompt"):
        choose_task("reference_sentiment", models=[make_model(tmp_path / "binary", BINARY_SENTIMENT)])


def test_two_models_of_different_tasks_need_a_task(tmp_path: Path, three: Task, three_file: str) -> None:
    sides = [make_model(tmp_path / "a", three), make_model(tmp_path / "b", BINARY_SENTIMENT)]
    with pytest.raises(ConfigError, match=r"three_classes .*binary_sentiment .*--task"):
        choose_task(models=sides)
    for option, stranger in ((three_file, sides[1]), ("binary_sentiment", sides[0])):
        assert choose_task(option, models=sides).unfamiliar == (stranger,)
    with pytest.raises(ConfigError, match="--task is reference_sentiment"):
        choose_task("reference_sentiment", models=sides)


def test_of_a_classifier_labels_count_and_words_do_not(tmp_path: Path, three: Task, three_file: str) -> None:
    head = make_model(tmp_path / "head", REFERENCE_SENTIMENT)
    model = make_model(tmp_path / "model", BINARY_SENTIMENT)
    chosen = choose_task(models=[model], classifiers=[head])
    assert (chosen.task, chosen.unfamiliar) == (BINARY_SENTIMENT, ())
    assert choose_task("binary_sentiment", classifiers=[head]).task == BINARY_SENTIMENT
    with pytest.raises(ConfigError, match="classifier was trained for the task reference_sentiment"):
        choose_task(three_file, classifiers=[head])
    with pytest.raises(ConfigError, match="models of one task"):
        choose_task(models=[make_model(tmp_path / "three", three)], classifiers=[head])


def test_labels_are_known_by_name_and_synonym() -> None:
    task = Task("t", ("负面", "正面"), "s", (0, 1), "{text}?", (("negative",), ("Positive",)))
    assert knows_labels(task, ["positive", "negative"])
    assert not knows_labels(task, ["positive", "正面"])
    assert not knows_labels(task, ["negative", "neutral", "positive"])


def test_reviews_of_another_task_are_refused(tmp_path: Path, three: Task, three_file: str) -> None:
    data = make_data(tmp_path / "data", record_task(three))
    model = make_model(tmp_path / "model", BINARY_SENTIMENT)
    for words in ({"option": "binary_sentiment"}, {"models": [model]}, {"classifiers": [model]}):
        with pytest.raises(ConfigError, match="labelled for the task three_classes") as caught:
            choose_task(**words, data=[data])  # type: ignore[arg-type]
        assert (caught.value.code, caught.value.where) == ("task-of-reviews", str(tmp_path / "data" / "manifest.json"))
    turned = replace(BINARY_SENTIMENT, name="turned", answer_values=(1, 0))
    with pytest.raises(ConfigError, match="1 = negative, 0 = positive"):
        choose_task(models=[model], data=[make_data(tmp_path / "turned", record_task(turned))])
    with pytest.raises(ConfigError, match="binary_sentiment"):
        choose_task(data=[data, make_data(tmp_path / "binary", record_task(BINARY_SENTIMENT))])


def test_other_words_for_the_same_labels_are_the_models_affair(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", REFERENCE_SENTIMENT)
    data = make_data(tmp_path / "data", record_task(BINARY_SENTIMENT))
    assert choose_task(models=[model], data=[data]).task == REFERENCE_SENTIMENT


def test_texts_without_labels_contradict_nothing(tmp_path: Path, three: Task) -> None:
    data = make_data(tmp_path / "data", record_task(three))
    assert choose_task(models=[make_model(tmp_path / "model", BINARY_SENTIMENT)], texts=[data]).source == MODEL
    assert choose_task("binary_sentiment", texts=[data]).task == BINARY_SENTIMENT
    assert choose_task(models=[make_model(tmp_path / "bare", None)], texts=[data]).task == three


def test_an_earlier_prompt_of_a_built_in_task_is_the_models_by_that_name(tmp_path: Path) -> None:
    earlier = replace(BINARY_SENTIMENT, prompt_template="旧的提示词，回答 0 或 1：{text}")
    model, other = make_model(tmp_path / "old", earlier), make_model(tmp_path / "new", BINARY_SENTIMENT)
    chosen = choose_task("binary_sentiment", models=[model])
    assert (chosen.task.prompt_template, chosen.where) == (earlier.prompt_template, model)
    with pytest.raises(ConfigError, match="with another prompt"):
        choose_task(models=[model, other])
    both = choose_task("binary_sentiment", models=[model, other])
    assert (both.task, both.unfamiliar) == (BINARY_SENTIMENT, (model,))


def test_an_older_manifest_is_read_as_far_as_it_goes(tmp_path: Path, three: Task, three_file: str) -> None:
    old = {key: record_task(three)[key] for key in ("name", "labels", "prompt_template")}
    assert choose_task(data=[make_data(tmp_path / "file", {**old, "file": three_file, "sha256": "x"})]).task == three
    binary = {key: record_task(BINARY_SENTIMENT)[key] for key in ("name", "labels", "prompt_template")}
    assert choose_task(data=[make_data(tmp_path / "built_in", binary)]).task == BINARY_SENTIMENT
    earlier = {**binary, "prompt_template": "旧的：{text}"}
    assert choose_task(data=[make_data(tmp_path / "earlier", earlier)]).task.prompt_template == "旧的：{text}"
    for name, record in (
        ("gone", {**old, "file": str(tmp_path / "gone.yaml")}),
        ("changed", {**old, "prompt_template": "Other words: {text}", "file": three_file}),
        ("nameless", old),
    ):
        data = make_data(tmp_path / name, record)
        with pytest.raises(ConfigError, match=r"'three_classes'.*--task"):
            choose_task(data=[data])
        assert choose_task(three_file, data=[data]).task == three
        with pytest.raises(ConfigError, match="labelled for the task three_classes"):
            choose_task("binary_sentiment", data=[data])


def test_a_fold_has_its_manifest_one_folder_higher(tmp_path: Path, three: Task) -> None:
    make_data(tmp_path / "data", record_task(three), outputs={"fold_0/test.csv": {}})
    for fold, source in ((0, DATA), (1, DEFAULT)):
        assert choose_task(data=[make_data(tmp_path / "data" / f"fold_{fold}", None)]).source == source


@pytest.mark.parametrize("content", ["{", "[]", '{"task": "x"}', '{"task": {"name": 3}}', '{"icons": []}'])
def test_the_manifest_of_another_program_is_ignored(tmp_path: Path, content: str) -> None:
    data = make_data(tmp_path / "data", None)
    (tmp_path / "data" / "manifest.json").write_text(content, encoding="utf-8")
    assert choose_task(data=[data]).source == DEFAULT


def test_the_line_names_task_and_reason(tmp_path: Path, three: Task, capsys: pytest.CaptureFixture[str]) -> None:
    sides = [make_model(tmp_path / "a", three), make_model(tmp_path / "b", BINARY_SENTIMENT)]
    chosen = choose_task("binary_sentiment", models=sides).announce()
    told = capsys.readouterr()
    assert told.out == ""
    assert [line.count("binary_sentiment") for line in told.err.splitlines()] == [1, 1]
    assert sides[0] in told.err.splitlines()[1]
    assert chosen.to_json() == {**record_task(BINARY_SENTIMENT), "source": OPTION, "where": ""}
