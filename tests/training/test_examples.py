"""Every YAML under examples/ opens with its header and passes LLaMA-Factory's own parser."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FILES = sorted(path for pattern in ("*.yaml", "*.yml") for path in EXAMPLES.rglob(pattern))
# Files that belong to no parser of LLaMA-Factory: our own tasks and search spaces, and those that vLLM reads
# (tests/engines/test_inference_examples.py loads these).
LLAMAFACTORY_FILES = [
    path
    for path in FILES
    if not {"tasks", "sweeps"} & set(path.relative_to(EXAMPLES).parts) and not path.stem.endswith("_vllm")
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
def test_llamafactory_parser_takes_it(path: Path, tmp_path: Path) -> None:
    from llamafactory.hparams import get_infer_args, get_train_args

    settings: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    former = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        if "output_dir" not in settings:
            get_infer_args(settings)
            return
        # Mixed precision is a matter of the device: on the CPU the parser takes bf16 as it stands, and fp16 as well.
        # The output folder is another, so that a run that was made here does not matter.
        arguments = get_train_args({**settings, "use_cpu": True, "output_dir": str(tmp_path)})
    finally:
        logging.disable(former)
    training = arguments[2]
    assert training.bf16 == settings.get("bf16", False)
    assert training.learning_rate == pytest.approx(float(settings["learning_rate"]))
    assert training.output_dir == str(tmp_path)


def test_every_training_recipe_has_an_output_folder_of_its_own() -> None:
    folders = [yaml.safe_load(path.read_text(encoding="utf-8")).get("output_dir") for path in LLAMAFACTORY_FILES]
    named = [folder for folder in folders if folder]
    assert len(named) == len(set(named))


def test_our_freeze_recipes_free_no_extra_modules() -> None:
    for path in LLAMAFACTORY_FILES:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        if settings.get("finetuning_type") == "freeze" and "reference" not in path.parts:
            assert "freeze_extra_modules" not in settings, path
            assert isinstance(settings["learning_rate"], float), path  # "3e-4" would be a text to YAML 1.1
