"""Folders that are no whole model: refused by one check, with the command that finishes the training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_comparison import write_reviews
from tiny_models import build_tiny_bert
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.errors import SentiFactoryError
from sentifactory.models.complete_folder import find_gap, write_training
from sentifactory.system.command_line import write_command
from sentifactory.training.recipe.recipe import load_recipe
from sentifactory.training.recipe.recipe_checks import check_model

CONTINUES = "sentifactory train quick.yaml seed=7"
TOKENIZER = ("tokenizer.json", "vocab.txt")


@pytest.fixture(scope="session")
def whole_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bert(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def models(tmp_path: Path, whole_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A whole model, and a training that was stopped after its checkpoint-4."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole_model, "whole")
    checkpoint = Path("stopped/checkpoint-4")
    shutil.copytree(whole_model, checkpoint)
    for name in TOKENIZER:
        (checkpoint / name).unlink()
    write_card(Path("stopped"))
    return tmp_path


def write_card(folder: Path, **changes: Any) -> None:
    card = {"status": "interrupted", "recipe_file": "quick.yaml", "overrides": ["seed=7"], "loss": "answer"}
    (folder / "run.json").write_text(json.dumps(card | changes), encoding="utf-8")


def catch_error(*words: str) -> SentiFactoryError:
    error = CliRunner().invoke(build_app(), list(words)).exception
    assert isinstance(error, SentiFactoryError), error
    return error


def remove(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def cut_off(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])


def leave_a_pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def lose_a_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (remove("config.json"), "model-incomplete"),
        (remove("model.safetensors"), "model-incomplete"),
        (remove(*TOKENIZER), "model-no-tokenizer"),
        (lambda folder: (folder / "config.json").write_text("[]"), "model-config"),
        (cut_off, "model-weights"),
        (leave_a_pointer, "model-weights"),
        (lose_a_shard, "model-weights"),
    ],
    ids=["no config", "no weights", "no tokenizer", "broken config", "cut off", "pointer", "no shard"],
)
def test_each_part_is_looked_for(models: Path, harm: Callable[[Path], object], code: str) -> None:
    folder = models / "whole"
    assert find_gap(folder) is None
    harm(folder)
    gap = find_gap(folder)
    assert gap is not None
    assert gap.code == code
    assert gap.next_step


def test_an_export_as_gguf_names_its_server(tmp_path: Path) -> None:
    (tmp_path / "model-q8_0.gguf").write_bytes(b"GGUF")
    gap = find_gap(tmp_path)
    assert gap is not None
    assert gap.code == "model-incomplete"
    assert f"llama-server -m {tmp_path / 'model-q8_0.gguf'}" in gap.next_step
    assert f"--engine http://127.0.0.1:8080 --model {tmp_path}," in gap.next_step


@pytest.mark.parametrize("status", ["interrupted", "running", "failed"])
def test_a_training_that_has_not_finished_is_continued(models: Path, status: str) -> None:
    write_card(models / "stopped", status=status, loss="label")
    for folder in ("stopped", "stopped/checkpoint-4"):
        gap = find_gap(models / folder)
        assert gap is not None
        assert gap.next_step.endswith(f"{CONTINUES} --loss label")
        assert gap.code == ("model-unfinished" if folder == "stopped" else "model-no-tokenizer")


def test_a_checkpoint_of_a_finished_training_gives_way_to_its_model(models: Path) -> None:
    shutil.copytree("whole", "stopped", dirs_exist_ok=True)
    write_card(Path("stopped"), status="finished")
    assert find_gap(Path("stopped")) is None
    gap = find_gap(Path("stopped/checkpoint-4"))
    assert gap is not None
    assert gap.next_step.endswith("stopped")


def test_a_folder_of_models_names_them(models: Path) -> None:
    gap = find_gap(models)
    assert gap is not None
    assert gap.next_step.endswith(str(models / "whole")), "and not the one that is broken"


def test_the_command_is_quoted() -> None:
    card = {"recipe_file": "my recipe.yaml", "overrides": ["dataset=a b"]}
    assert write_training(card) == write_command("train", "my recipe.yaml", "dataset=a b")


REVIEWS = ("--train_csv", "train.csv", "--val_path", "val.csv")
COMMANDS = {
    "compare": ("eval", "compare", "--csv_path", "val.csv", "--base_model", "whole", "--finetuned_model", "BROKEN",
                "--engine", "encoder", "--mode", "score"),
    "compare as base": ("eval", "compare", "--csv_path", "val.csv", "--base_model", "BROKEN", "--finetuned_model",
                        "whole", "--mode", "score"),
    "label": ("label", "val.csv", "out.csv", "--model", "BROKEN"),
    "serve": ("serve", "BROKEN", "--port", "0"),
    "predict": ("predict", "好", "--model", "BROKEN"),
    "distill": ("distill", "--teacher", "BROKEN", "--input_file", "val.csv", "--output_file", "soft.jsonl"),
    "probe": ("model", "probe", "BROKEN", "--csv_path", "val.csv"),
    "stack": ("model", "stack", "BROKEN", *REVIEWS, "--output_dir", "out"),
    "onnx": ("export", "onnx", "BROKEN", "--output_dir", "out", "--val_path", "val.csv"),
    "dtype": ("export", "dtype", "BROKEN", "--output_dir", "out", "--val_path", "val.csv"),
}  # fmt: skip


@pytest.mark.parametrize("model", ["stopped", "stopped/checkpoint-4"])
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_command_refuses_it_before_any_work(models: Path, command: tuple[str, ...], model: str) -> None:
    for name in ("train.csv", "val.csv"):
        write_reviews(models / name, [(1, f"{name}很好"), (0, f"{name}太差")])
    before = set(models.rglob("*"))
    error = catch_error(*(model if word == "BROKEN" else word for word in command))
    assert error.code == ("model-unfinished" if model == "stopped" else "model-no-tokenizer")
    assert CONTINUES in error.next_step
    assert set(models.rglob("*")) == before


@pytest.mark.parametrize("command", ["cut", "merge", "publish"])
def test_commands_of_other_kinds_of_models_refuse_a_training_that_has_not_finished(models: Path, command: str) -> None:
    words = {
        "cut": ("model", "cut", "stopped", "--layers", "1", "--output_dir", "out"),
        "merge": ("export", "merge", "stopped", "--output_dir", "out", "--val_path", "val.csv"),
        "publish": ("publish", "stopped", "--repo_id", "a/b", "--dry_run"),
    }
    error = catch_error(*words[command])
    assert error.code == "model-unfinished"
    assert CONTINUES in error.next_step


def test_a_checkpoint_is_not_published(models: Path) -> None:
    error = catch_error("publish", "stopped/checkpoint-4", "--repo_id", "a/b", "--dry_run")
    assert CONTINUES in error.next_step, "among all the other reasons"


def test_a_recipe_names_it(models: Path) -> None:
    (models / "next.yaml").write_text("model_name_or_path: stopped\n", encoding="utf-8")
    assert CONTINUES in next(check_model(load_recipe(models / "next.yaml")))
