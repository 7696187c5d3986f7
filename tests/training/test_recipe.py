"""Reading a recipe and finding all its problems."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sentifactory.errors import ConfigError
from sentifactory.training.recipe.recipe import load_recipe, suggest

MODEL = {"num_hidden_layers": 2}
GOOD = """\
# a comment
model_name_or_path: {folder}/model
stage: sft
do_train: true
finetuning_type: freeze
dataset: reviews
dataset_dir: {folder}/data
template: gemma2
output_dir: {folder}/out
learning_rate: 1e-4
use_cpu: true
"""


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with a model's config, a registered data set and a good recipe."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(MODEL))
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "reviews.jsonl").write_text('{"messages": []}\n')
    register = {"reviews": {"file_name": "reviews.jsonl"}, "gone": {"file_name": "gone.jsonl"}}
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(register))
    (tmp_path / "good.yaml").write_text(GOOD.format(folder=tmp_path))
    return tmp_path


def find(workplace: Path, *overrides: str) -> list[str]:
    from sentifactory.training.recipe.recipe_checks import find_problems

    return find_problems(load_recipe(workplace / "good.yaml", overrides))


def test_overrides_take_precedence_and_are_parsed_as_by_llamafactory(workplace: Path) -> None:
    recipe = load_recipe(workplace / "good.yaml", ["learning_rate=3e-4", "max_steps=5", "bf16=true", "run_name=a=b"])
    assert recipe.settings["learning_rate"] == pytest.approx(3e-4)
    assert recipe.settings["max_steps"] == 5
    assert recipe.settings["bf16"] is True
    assert recipe.settings["run_name"] == "a=b"
    assert recipe.settings["stage"] == "sft"
    assert recipe.locate("stage") == "line 3"
    assert recipe.locate("max_steps") == "command line"


@pytest.mark.slow
def test_settings_equal_what_llamafactory_itself_reads(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llamafactory.hparams.parser import read_args

    words = ["learning_rate=3e-4", "dataset=[reviews,gone]", 'save_strategy="no"', "warmup_steps=0.1"]
    monkeypatch.setattr(sys, "argv", ["train", str(workplace / "good.yaml"), *words])
    assert read_args() == load_recipe(workplace / "good.yaml", words).settings


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"- a\n- b\n", "YAML mapping"),
        (b"stage: sft\nstage: pt\n", "duplicate"),
        (b"stage: [sft\nlr: 1\n", "line"),
        ("stage: 训练".encode("gbk"), "UTF-8"),
    ],
)
def test_files_that_are_not_recipes(tmp_path: Path, content: bytes, word: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=word) as caught:
        load_recipe(file)
    assert str(file) in str(caught.value)


def test_missing_file_and_malformed_overrides(workplace: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_recipe(workplace / "none.yaml")
    for word in ("learning_rate", "=3", "--lr", "a b=1"):
        with pytest.raises(ConfigError, match="key=value"):
            load_recipe(workplace / "good.yaml", [word])


@pytest.mark.parametrize("key", ["a" + ".a" * 2000, "a" + "[0]" * 500])
def test_a_too_deeply_nested_key_is_not_an_override(workplace: Path, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(workplace / "good.yaml", [f"{key}=1"])
    assert caught.value.where == "command line"


def test_good_recipe_has_no_problem(workplace: Path) -> None:
    assert find(workplace) == []
    assert find(workplace, "model_name_or_path=Qwen/Qwen2.5-0.5B", "report_to=none", "master_port=29500") == []


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("learning_rat=1", "learning_rat (command line) is not a key of LLaMA-Factory, did you mean learning_rate?"),
        ("zzzz=1", "zzzz (command line) is not a key of LLaMA-Factory, remove it"),
        ("learning_rate=fast", "learning_rate (command line) is 'fast', but a number is expected"),
        ("max_samples=ten", "max_samples (command line) is 'ten', but a whole number is expected"),
        ("max_steps=1.5", "max_steps (command line) is 1.5, but a whole number is expected"),
        ("do_train=maybe", "do_train (command line) is 'maybe', but true or false is expected"),
        ("finetuning_type=frozen", "but one of lora, oft, freeze, full is expected"),
        ("save_strategy=no", "YAML reads a bare no as a boolean"),
        ("output_dir=", "output_dir is missing"),
        ("dataset=", "dataset is missing"),
        ("dataset=review", "dataset (command line): review is not registered in"),
        ("dataset=gone", "gone.jsonl of gone does not exist"),
        ("dataset_dir=nowhere", "dataset_info.json does not exist"),
        ("model_name_or_path=saves/pretrained/gemma-3-270m", "create it with: sentifactory model fetch gemma-3-270m"),
        (
            "model_name_or_path=saves/pretrained/gemma-3-270m-12",
            "create it with: sentifactory model cut saves/pretrained/gemma-3-270m --layers 12 "
            "--output_dir saves/pretrained/gemma-3-270m-12",
        ),
        ("model_name_or_path=./nowhere", "the folder ./nowhere does not exist"),
    ],
)
def test_each_problem_names_key_and_remedy(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, word: str, expected: str
) -> None:
    monkeypatch.chdir(workplace)
    problems = find(workplace, word)
    assert len(problems) == 1
    assert expected in problems[0]


@pytest.mark.parametrize("name", ["model", "model/", "data", ".", "data/../model", "link", "fetched", "adapter"])
def test_an_output_folder_with_inputs_or_a_foreign_model_is_refused(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(workplace)
    (workplace / "link").symlink_to(workplace / "model")
    for folder in ("fetched", "adapter"):
        (workplace / folder).mkdir()
    (workplace / "fetched" / "sentifactory_model.json").write_text("{}")
    (problem,) = find(workplace, f"output_dir={name}", "adapter_name_or_path=adapter,other")
    assert problem.startswith(f"output_dir (command line) is {name}")
    assert find(workplace, "output_dir=model/tuned") == []


@pytest.mark.parametrize("name", ["model", "link", "data"])
def test_an_encoder_is_not_trained_into_what_it_reads(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from sentifactory.training.encoder.encoder_recipe import find_encoder_problems

    monkeypatch.chdir(workplace)
    (workplace / "link").symlink_to(workplace / "model")
    (workplace / "data" / "reviews.csv").write_text("text,label\n好,1\n")
    (workplace / "encoder.yaml").write_text(
        f"stage: encoder\nmodel_name_or_path: model\ndataset: data/reviews.csv\noutput_dir: {name}\n"
    )
    (problem,) = find_encoder_problems(load_recipe(workplace / "encoder.yaml"))
    assert problem.startswith("output_dir (line 4)")


def test_folder_without_config_and_empty_data_file(workplace: Path) -> None:
    (workplace / "model" / "config.json").unlink()
    (workplace / "data" / "reviews.jsonl").write_text("")
    problems = find(workplace)
    assert "config.json missing" in problems[0]
    assert problems[1].endswith("reviews.jsonl of reviews is empty")


@pytest.mark.parametrize("content", ["[]", '{"reviews": "reviews.jsonl"}', '{"reviews": '])
def test_a_malformed_register_is_reported(workplace: Path, content: str) -> None:
    register = workplace / "data" / "dataset_info.json"
    register.write_text(content)
    (problem,) = find(workplace)
    assert str(register) in problem
    assert "is not a register" in problem or "cannot be read" in problem


def test_line_numbers_point_into_the_file(workplace: Path) -> None:
    file = workplace / "good.yaml"
    file.write_text(file.read_text().replace("finetuning_type: freeze", "finetuning_typ: freeze"))
    (problem,) = find(workplace)
    assert problem == ("finetuning_typ (line 5) is not a key of LLaMA-Factory, did you mean finetuning_type?")


def test_suggestions_are_close_or_absent() -> None:
    assert suggest("cutoff_length", ["cutoff_len", "seed"]) == ", did you mean cutoff_len?"
    assert suggest("banana", ["cutoff_len", "seed"]) == ""


@pytest.mark.slow
def test_errors_of_llamafactorys_parser_become_one_message(workplace: Path) -> None:
    from sentifactory.training.llamafactory.train_recipe import check_recipe

    with pytest.raises(ConfigError, match="val_size"):
        check_recipe(load_recipe(workplace / "good.yaml", ["val_size=0.1", "eval_dataset=reviews"]))
    if not _has_gpu():
        with pytest.raises(ConfigError, match="bf16=false"):
            check_recipe(load_recipe(workplace / "good.yaml", ["bf16=true", "use_cpu=false"]))
    check_recipe(load_recipe(workplace / "good.yaml"))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.mark.slow
def test_failure_before_the_first_step_leaves_nothing(workplace: Path) -> None:
    from sentifactory.training.llamafactory.train_recipe import train_recipe

    with pytest.raises(ConfigError, match="could not start"):
        train_recipe(workplace / "good.yaml")  # a config of two layers and nothing else is no model
    assert not (workplace / "out").exists()


def test_modules_import_with_the_core_alone() -> None:
    code = (
        "import sys, pkgutil, importlib, sentifactory.training as room\n"
        "for item in pkgutil.iter_modules(room.__path__):\n"
        "    importlib.import_module('sentifactory.training.' + item.name)\n"
        "print([name for name in ('torch', 'transformers', 'llamafactory', 'omegaconf') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
