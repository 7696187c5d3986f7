"""Every command that leaves something to go on with ends with the next command, which this program can read."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from scripted_comparison import write_reviews
from tiny_models import build_tiny_bert
from typer.testing import CliRunner

from sentifactory.cli import build_app
from sentifactory.corpus.prepare import prepare_reviews
from sentifactory.evaluation import demo

ENCODER_RECIPE = """
model_name_or_path: {folder}/bert
stage: encoder
dataset: {folder}/data/shop/train.csv
eval_dataset: {folder}/data/shop/val.csv
output_dir: {folder}/enc
per_device_train_batch_size: 32
num_train_epochs: 1
use_cpu: true
"""
LLM_RECIPE = """
model_name_or_path: {gemma}
stage: sft
do_train: true
finetuning_type: freeze
freeze_trainable_layers: 1
dataset: shop_train
dataset_dir: {folder}/data
template: gemma2
output_dir: {folder}/llm
use_cpu: true
"""
SHOP, ENC = "{folder}/data/shop", "{folder}/enc"
REVIEWS = ("--csv_path", f"{SHOP}/test.csv", "--train_csv", f"{SHOP}/train.csv")
# In an order in which each finds what those before have made. The last ones need a model of another kind, or hours:
# their next commands are tested with them.
COMMANDS = {
    "data prepare": ["{folder}/shop.csv", "--output_dir", "{folder}/data", "--name", "again"],
    "data show": [SHOP, "--skip_doubt"],
    "data doubt": [SHOP],
    "data check": ["--train", f"{SHOP}/train.csv", "--test", f"{SHOP}/test.csv"],
    "model fetch": ["--output_dir", "{pretrained}"],
    "model cut": ["{gemma}", "--layers", "2", "--output_dir", "{folder}/cut"],
    "model probe": ["{gemma}", "--csv_path", f"{SHOP}/train.csv", "--max_samples", "40"],
    "train": ["{folder}/encoder.yaml"],
    "train --dry_run": ["{folder}/llm.yaml", "--loss", "mixed"],
    "eval compare": [*REVIEWS, "--base_model", "{folder}/bert", "--finetuned_model", ENC, "--engine", "encoder",
                     "--mode", "score"],
    "eval ladder": [*REVIEWS, "--encoder_model", ENC],
    "eval power": ["--difference", "0.03", "--discordance", "0.1"],
    "label": [f"{SHOP}/test.csv", "{folder}/out.csv", "--model", ENC],
    "distill": ["--teacher", ENC, "--input_file", f"{SHOP}/train.csv", "--output_file", "{folder}/soft.jsonl",
                "--engine", "encoder"],
    "model stack": [ENC, "--train_csv", f"{SHOP}/train.csv", "--val_path", f"{SHOP}/val.csv", "--output_dir",
                    "{folder}/stack"],
    "export onnx": [ENC, "--output_dir", "{folder}/onnx", "--val_path", f"{SHOP}/val.csv", "--max_flips", "1",
                    "--max_difference", "1", "--quantise", "none"],
    "export dtype": ["{gemma}", "--output_dir", "{folder}/dtype", "--val_path", f"{SHOP}/val.csv"],
}  # fmt: skip
ELSEWHERE = {"export merge", "export gguf", "sweep", "demo"}
# They end with an answer, an address or a list of their own.
WITHOUT = {"predict", "publish", "serve", "ui", "doctor"}


def list_commands(group: Any, before: str = "") -> Iterator[str]:
    """All commands of the program, as they are typed."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from list_commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}"


def check_command(line: str) -> None:
    """Let the program read a command without running it: unknown commands, options and values raise."""
    program, *words = shlex.split(line)
    assert program == "sentifactory"
    command: Any = typer.main.get_command(build_app())
    while hasattr(command, "commands"):
        name, *words = words
        command = command.commands[name]
    command.make_context("sentifactory", list(words))


def find_next(output: str) -> list[str]:
    """The next commands in the last lines of an output."""
    lines = output.rstrip().splitlines()
    if lines[-1].startswith("Next: "):
        return [lines[-1].removeprefix("Next: ")]
    start = len(lines) - lines[::-1].index("Next:")
    return [line.strip() for line in lines[start:]]


def test_each_command_is_known_here() -> None:
    known = {*COMMANDS, *ELSEWHERE, *WITHOUT} - {"train --dry_run"}
    assert {*list_commands(typer.main.get_command(build_app()))} == known


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, short_gemma: Path, gemma_checkpoint: Path) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("places")
    words = ("又差又旧，太糟", "很好很新，满意")
    rows = [(row % 2, f"第{row * 7919}家店{words[row % 2]}，{row * 104729}号桌") for row in range(400)]
    write_reviews(folder / "shop.csv", rows)
    prepare_reviews(str(folder / "shop.csv"), output_dir=folder / "data", val_size=80, test_size=80)
    (folder / "bert").mkdir()
    build_tiny_bert(folder / "bert")
    found = {"folder": str(folder), "gemma": str(short_gemma), "pretrained": str(gemma_checkpoint.parent)}
    (folder / "encoder.yaml").write_text(ENCODER_RECIPE.format(**found), encoding="utf-8")
    (folder / "llm.yaml").write_text(LLM_RECIPE.format(**found), encoding="utf-8")
    return found


@pytest.mark.slow
def test_every_command_ends_with_the_next(
    places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {*tmp_path.iterdir()}
    for name, template in COMMANDS.items():
        words = [*name.split(), *(word.format(**places) for word in template)]
        result = CliRunner().invoke(build_app(), words)
        assert result.exit_code == 0, (name, result.output, result.exception)
        following = find_next(result.output)
        assert following, name
        for line in following:
            check_command(line)
    made = {*tmp_path.iterdir()} - before
    assert {path.name for path in made} <= {"sentifactory-cache"}, "whatever is written is under its data or model"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data show", "data doubt", "data check", "eval power"])
def test_json_is_all_that_is_printed(
    places: dict[str, str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*name.split(), *(word.format(**places) for word in COMMANDS[name]), "--json"]
    result = CliRunner().invoke(build_app(), words)
    assert result.exit_code == 0
    assert isinstance(json.loads(result.stdout), dict)
    assert "Next:" not in result.output


@pytest.mark.slow
def test_leaks_are_followed_by_the_command_that_leaves_them_out(
    places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shop = Path(places["folder"], "data", "shop")
    lines = (shop / "test.csv").read_text(encoding="utf-8").splitlines()[:9]
    leaked = (shop / "train.csv").read_text(encoding="utf-8").splitlines()[1:4]
    (tmp_path / "test.csv").write_text("\n".join([*lines, *leaked]) + "\n", encoding="utf-8")
    words = ["data", "check", "--train", str(shop / "train.csv"), "--test", "test.csv"]
    found = CliRunner().invoke(build_app(), words)
    assert found.exit_code == 3
    (line,) = find_next(found.output)
    left_out = CliRunner().invoke(build_app(), shlex.split(line)[1:])
    assert left_out.exit_code == 0, left_out.output
    assert (tmp_path / "test_unseen.csv").read_text(encoding="utf-8").splitlines()[1:] == lines[1:]
    (shown,) = find_next(left_out.output)
    assert CliRunner().invoke(build_app(), shlex.split(shown)[1:]).exit_code == 0


@pytest.mark.slow
def test_the_number_of_reviews_is_followed_by_preparing_as_many(
    places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(Path(places["folder"], "data"))
    shares = ["--difference", "0.1", "--discordance", "0.11"]
    enough = CliRunner().invoke(build_app(), ["eval", "power", *shares])
    (line,) = find_next(enough.output)
    assert CliRunner().invoke(build_app(), shlex.split(line)[1:]).exit_code == 0, line
    (few,) = find_next(CliRunner().invoke(build_app(), ["eval", "power", *shares, "--reviews", "9"]).output)
    assert shlex.split(few)[1:] == ["eval", "power", *shares]
    fine = ["--difference", "0.002", "--discordance", "0.1"]
    (larger,) = find_next(CliRunner().invoke(build_app(), ["eval", "power", *fine]).output)
    assert "--difference 0.004" in larger, "no data set has so many reviews"


def test_the_demo_is_followed_by_using_what_won(repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repo_root)
    report = {
        "paired_tests": {"tuned_vs_base": {"is_shown": True, "difference": 0.3}},
        "verdict": {"winner": "tuned", "is_shown": True},
    }
    monkeypatch.setattr(demo, "run_stages", lambda max_samples: report)
    monkeypatch.setattr("sentifactory.evaluation.report.report_console.print_report", lambda report: None)
    result = CliRunner().invoke(build_app(), ["demo"])
    (line,) = find_next(result.output)
    assert line.split()[:3] == ["sentifactory", "serve", "saves/gemma-3-270m/freeze/demo"]
    check_command(line)
