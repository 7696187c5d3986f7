"""The task of a run is found in its data and saved with the model, for language models and encoders."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_models import build_tiny_bert, link_model

from sentifactory.cli import main
from sentifactory.corpus.prepare import prepare_reviews
from sentifactory.errors import ConfigError
from sentifactory.task.model_folder import read_model_task, write_model_task
from sentifactory.task.task import BINARY_SENTIMENT, REFERENCE_SENTIMENT, Task
from sentifactory.task.task_file import load_task, record_task
from sentifactory.training.run.run_task import find_training_task

DEMO = "train_freeze/gemma3_270m_freeze_demo.yaml"
WORDS = ("太差失望", "一般还行", "很好满意")


def write_csv(path: Path, n: int = 60) -> str:
    rows = [f"{at % 3},{WORDS[at % 3]}{chr(0x4E00 + 37 * at)}{chr(0x5E00 + 91 * at)}第{at}次" for at in range(n)]
    path.write_text("\n".join(["label,text", *rows]) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def data(tmp_path: Path, three_file: str) -> Path:
    """A data folder in which `three` is prepared for three classes."""
    prepare_reviews(
        write_csv(tmp_path / "three.csv"), output_dir=tmp_path / "data", task_name=three_file, val_size=6, test_size=6
    )
    return tmp_path / "data"


def register(data: Path, name: str, rows: Sequence[dict[str, Any]], **entry: Any) -> None:
    """Register a data set of the user's own, without a manifest."""
    (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = data / "dataset_info.json"
    known = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**known, name: {"file_name": f"{name}.jsonl", **entry}}), encoding="utf-8")


def find(data: Path, names: str, option: str | None = None) -> Task | None:
    return find_training_task({"dataset": names, "dataset_dir": str(data)}, option).task


def chat(prompt: str, answer: str, system: str = "") -> dict[str, Any]:
    turns = [("human", prompt), ("gpt", answer)]
    return {"conversations": [{"from": who, "value": words} for who, words in turns], "system": system}


def test_prepared_data_name_their_task(data: Path, three: Task, three_file: str) -> None:
    assert find(data, "three_train") == find(data, "three_train", three_file) == three
    for option in ("binary_sentiment", "reference_sentiment"):
        with pytest.raises(ConfigError, match="have the task three_classes"):
            find(data, "three_train", option)


def test_a_built_in_task_is_recognised_in_other_chat_files(data: Path) -> None:
    for task in (BINARY_SENTIMENT, REFERENCE_SENTIMENT):
        prompts = [(task.render_prompt(f"第{at}条"), task.render_answer(at % 2)) for at in range(6)]
        register(data, "chats", [chat(*pair) for pair in prompts])
        register(data, "rows", [{"instruction": prompt, "output": answer} for prompt, answer in prompts])
        columns = {"columns": {"prompt": "q", "response": "a"}}
        register(data, "own", [{"q": prompt, "a": answer} for prompt, answer in prompts], **columns)
        for name in ("chats", "rows", "own"):
            assert find(data, name) == task
    spoken = [chat(*pair, system="你是客服") for pair in prompts]
    register(data, "spoken", spoken)
    assert find(data, "spoken") is None, "with a system turn the model is trained on another prompt"


def test_a_custom_prompt_has_a_task_only_by_the_option(data: Path, tmp_path: Path) -> None:
    register(data, "foreign", [chat(f"Good or bad? {at}", '{"feeling": 1}') for at in range(4)])
    assert find(data, "foreign") is None
    with pytest.raises(ConfigError, match="prompts of the training data are not those of the task binary_sentiment"):
        find(data, "foreign", "binary_sentiment")
    own = tmp_path / "own.yaml"
    own.write_text(
        "name: own\nanswer_key: feeling\nprompt: 'Good or bad? {text}'\n"
        "labels: [{name: bad, answer: 0}, {name: good, answer: 1}]\n"
    )
    assert find(data, "foreign", str(own)) == load_task(own)


def test_several_tasks_are_not_treated_as_one(data: Path, three: Task, three_file: str) -> None:
    answers = [(BINARY_SENTIMENT.render_prompt(str(at)), BINARY_SENTIMENT.render_answer(1)) for at in range(4)]
    register(data, "binary", [chat(*pair) for pair in answers])
    register(data, "talk", [chat("你是谁？", "我是助手")])
    assert find(data, "three_train,binary") is None
    assert find(data, "three_train,binary", three_file) == three
    assert find(data, "three_train,talk") == find(data, "three_train,talk", three_file) == three


def test_a_manifest_that_contradicts_the_prompts_is_ignored(data: Path) -> None:
    rows = [{"messages": BINARY_SENTIMENT.render_messages(str(at), 0)} for at in range(4)]
    (data / "three" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert find(data, "three_train") == BINARY_SENTIMENT


@pytest.mark.slow
def test_a_run_saves_its_task_with_the_model(
    run_recipe: Callable[..., dict[str, Any]],
    small_gemma: Path,
    data: Path,
    three: Task,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = [f"dataset_dir={data}", "eval_dataset=null", 'eval_strategy="no"', "max_steps=2", "save_steps=1"]
    base = link_model(small_gemma, tmp_path / "base")
    write_model_task(BINARY_SENTIMENT, base)
    out = tmp_path / "out"
    card = run_recipe(DEMO, base, *words, "dataset=three_train", "save_strategy=steps", "save_only_model=true")
    assert read_model_task(out) == three
    assert [read_model_task(folder) for folder in sorted(out.glob("checkpoint-*"))] == [three]
    assert card["task"] == {**record_task(three), "source": "data", "where": str(data / "three" / "manifest.json")}
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["task"] == card["task"]
    message = capfd.readouterr().err
    assert f"{base} was trained on the task binary_sentiment" in message
    register(data, "foreign", [chat(f"Good or bad? {at}", "good") for at in range(8)], formatting="sharegpt")
    card = run_recipe(DEMO, base, *words, "dataset=foreign", "overwrite_output_dir=true", 'save_strategy="no"')
    assert card["task"]["name"] is None
    assert read_model_task(out) is None, "the folder does not keep the task of the model that stood there"


@pytest.fixture
def encoder_recipe(tmp_path: Path, data: Path) -> Path:
    model = tmp_path / "bert"
    model.mkdir()
    build_tiny_bert(model)
    recipe = tmp_path / "encoder.yaml"
    recipe.write_text(
        f"stage: encoder\nmodel_name_or_path: {model}\ndataset: {data / 'three' / 'train.csv'}\n"
        f"eval_dataset: {data / 'three' / 'val.csv'}\noutput_dir: {tmp_path / 'out'}\nmax_steps: 1\nuse_cpu: true\n"
    )
    return recipe


def run(words: Sequence[object], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["sentifactory", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.mark.slow
def test_an_encoder_learns_the_labels_of_the_manifest(
    encoder_recipe: Path, three: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["train", encoder_recipe], monkeypatch) == 0
    assert read_model_task(tmp_path / "out") == three
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert list(config["id2label"].values()) == list(three.labels)
    card = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert (card["task"]["name"], card["task"]["source"]) == (three.name, "data")


@pytest.mark.slow
def test_the_task_option_applies_to_encoders(
    encoder_recipe: Path,
    three: Task,
    three_file: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["train", encoder_recipe, "--task", "binary_sentiment"], monkeypatch) == 2
    assert "labelled for the task three_classes" in capsys.readouterr().err
    (data / "three" / "manifest.json").unlink()
    assert run(["train", encoder_recipe], monkeypatch) == 2
    message = capsys.readouterr().err
    assert "'2' (" in message
    assert "--task" in message
    assert "remove" not in message
    assert not (tmp_path / "out").exists()
    assert run(["train", encoder_recipe, "--task", three_file], monkeypatch) == 0
    assert read_model_task(tmp_path / "out") == three
    assert run(["train", encoder_recipe, f"model_name_or_path={tmp_path / 'out'}", f"output_dir={tmp_path / 'next'}"],
               monkeypatch) == 0  # fmt: skip
    assert read_model_task(tmp_path / "next") == three, "whoever trains a model further keeps its labels"
