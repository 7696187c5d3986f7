"""Every YAML under examples/ opens with its header and passes LLaMA-Factory's own parser."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sentifactory.training.encoder.encoder_recipe import find_encoder_problems
from sentifactory.training.recipe.recipe import is_encoder_recipe, load_recipe

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FILES = sorted(path for pattern in ("*.yaml", "*.yml") for path in EXAMPLES.rglob(pattern))
# Files that belong to no parser of LLaMA-Factory: our own tasks and search spaces, and those that vLLM reads
# (tests/engines/test_inference_examples.py loads these).
ENCODER_FILES = [path for path in FILES if path.relative_to(EXAMPLES).parts[0] == "train_encoder"]
LLAMAFACTORY_FILES = [
    path
    for path in FILES
    if not {"tasks", "sweeps"} & set(path.relative_to(EXAMPLES).parts)
    and not path.stem.endswith("_vllm")
    and path not in ENCODER_FILES
]


def name_of(path: Path) -> str:
    return str(path.relative_to(EXAMPLES))


def test_there_are_examples() -> None:
    assert {"train_freeze/gemma3_270m_freeze_demo.yaml", "train_freeze/qwen2_5_coder_1_5b_freeze_3k.yaml"} <= {
        name_of(path) for path in LLAMAFACTORY_FILES
    }


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_header_says_purpose_needs_command_and_output(path: Path) -> None:
    header = path.read_text(encoding="utf-8").split("\n\n", 1)[0]
    assert all(line.startswith("#") for line in header.splitlines())
    for word in ("Purpose:", "Must exist:", "Command:", "Output:"):
        assert word in header, word
    assert f"examples/{name_of(path)}" in header


@pytest.mark.slow
@pytest.mark.parametrize("path", LLAMAFACTORY_FILES, ids=name_of)
def test_llamafactory_parser_accepts_it(path: Path, tmp_path: Path) -> None:
    from llamafactory.hparams import get_infer_args, get_train_args

    settings: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    former = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        if "output_dir" not in settings:
            get_infer_args(settings)
            return
        # Mixed precision is a matter of the device: on the CPU the parser takes bf16 as it stands, and fp16 as well.
        # DeepSpeed's parser needs the package and several processes: its file is looked at by another test.
        # The output folder is another, so that a run that was made here does not matter.
        given = {**settings, "use_cpu": True, "deepspeed": None, "output_dir": str(tmp_path)}
        arguments = get_train_args(given)
    finally:
        logging.disable(former)
    training = arguments[2]
    assert training.bf16 == settings.get("bf16", False)
    assert training.fp16 == settings.get("fp16", False)
    assert training.learning_rate == pytest.approx(float(settings["learning_rate"]))
    assert training.output_dir == str(tmp_path)
    assert training.ray_num_workers == settings.get("ray_num_workers", 1)
    assert training.ray_init_kwargs == settings.get("ray_init_kwargs")


@pytest.mark.parametrize("path", ENCODER_FILES, ids=name_of)
def test_our_parser_accepts_the_encoder_recipes(path: Path) -> None:
    recipe = load_recipe(path)
    assert is_encoder_recipe(recipe)
    # What the header says must exist need not be there.
    problems = [
        text
        for text in find_encoder_problems(recipe)
        if "does not exist" not in text and "there is no folder" not in text
    ]
    assert problems == []


def test_the_four_tutorials_name_their_models() -> None:
    models = {yaml.safe_load(path.read_text(encoding="utf-8"))["model_name_or_path"] for path in ENCODER_FILES}
    assert {
        "uer/roberta-base-finetuned-jd-binary-chinese",
        "ms:damo/nlp_structbert_sentiment-classification_chinese-base",
        "google-bert/bert-base-chinese",
        "hfl/rbt3",
        "saves/pretrained/multilingual-e5-small",
    } <= models


def test_every_training_recipe_has_an_output_folder_of_its_own() -> None:
    recipes = [*LLAMAFACTORY_FILES, *ENCODER_FILES]
    folders = [yaml.safe_load(path.read_text(encoding="utf-8")).get("output_dir") for path in recipes]
    named = [folder for folder in folders if folder]
    assert len(named) == len(set(named))


def test_deepspeed_files_are_read_as_zero_3_by_accelerate() -> None:
    """The file that a recipe names exists, and offloads what its name says."""
    from accelerate.utils.deepspeed import HfDeepSpeedConfig

    named = [yaml.safe_load(path.read_text(encoding="utf-8")).get("deepspeed") for path in LLAMAFACTORY_FILES]
    assert "examples/distributed/deepspeed/ds_z3_offload.json" in named
    for file in sorted((EXAMPLES / "distributed" / "deepspeed").iterdir()):
        config = HfDeepSpeedConfig(str(file))
        assert config.is_zero3()
        assert bool(config.is_offload()) == ("offload" in file.name)
        # LLaMA-Factory's own values are put in where the file leaves them open.
        assert config.get_value("train_micro_batch_size_per_gpu") == "auto"
        assert config.get_value("zero_optimization.stage3_gather_16bit_weights_on_model_save") is True
    for path in LLAMAFACTORY_FILES:
        for name in re.findall(r"examples/[\w./-]+", path.read_text(encoding="utf-8")):
            assert (EXAMPLES.parent / name.rstrip("./")).exists(), (path, name)


def test_our_freeze_recipes_unfreeze_no_extra_modules() -> None:
    for path in LLAMAFACTORY_FILES:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        if settings.get("finetuning_type") == "freeze" and "reference" not in path.parts:
            assert "freeze_extra_modules" not in settings, path
            assert isinstance(settings["learning_rate"], float), path  # "3e-4" would be a text to YAML 1.1
