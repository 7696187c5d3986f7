"""The command `sentifactory sweep`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def sweep(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="A LLaMA-Factory training YAML to start from.")],
    space: Annotated[
        Path | None,
        typer.Option("--space", metavar="SPACE.yaml", help="The search space: keys with lists of values or ranges."),
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            metavar="KEY=VALUES",
            help="The same on the command line, as in 'learning_rate=[1e-4, 3e-4]'.",
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option("--trials", help="Total number of trials, including those before an interruption.")
    ] = 20,
    output_dir: Annotated[
        Path | None, typer.Option("--output_dir", help="The sweep's folder.  [sweep in the recipe's output_dir]")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="Task of the recipe's reviews: a name or a YAML file.  [the one in their manifest]",
        ),
    ] = None,
    val_path: Annotated[
        Path | None, typer.Option("--val_path", help="Validation reviews. [val.csv next to the training file]")
    ] = None,
    val_samples: Annotated[
        int | None, typer.Option("--val_samples", min=1, help="Maximum number of validation reviews. [all]")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the proposals and of the sample.")] = 42,
    trunk_cache_gib: Annotated[
        float | None, typer.Option("--trunk_cache_gib", min=0, help="As for `sentifactory train`.")
    ] = None,
    keep_all: Annotated[
        bool, typer.Option("--keep_all", help="Keep the weights of all trials, not only of the best one.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else.")
    ] = False,
) -> None:
    """Search the settings of a recipe: sentifactory sweep FILE.yaml --space SPACE.yaml [key=value ...].

    Every trial trains the recipe with other settings and is scored by macro-F1 on validation reviews; test reviews are
    not used. `task` in the search space tries other prompts on the same reviews. The sweep's folder gets the table
    sweep.md and the best recipe best.yaml. The same command continues an interrupted sweep.
    """
    from sentifactory.system.command_line import describe_next, write_command
    from sentifactory.training.sweep.search_space import LOSS
    from sentifactory.training.sweep.sweep import run_sweep
    from sentifactory.training.sweep.sweep_plan import SweepOptions, find_sweep_folder
    from sentifactory.training.sweep.sweep_report import BEST, print_sweep

    folder = output_dir or find_sweep_folder(recipe, context.args)
    result = run_sweep(
        SweepOptions(
            recipe=recipe,
            overrides=tuple(context.args),
            space_file=space,
            search=tuple(search or ()),
            output_dir=folder,
            trials=trials,
            task=task,
            val_path=val_path,
            val_samples=val_samples,
            seed=seed,
            cache_gib=trunk_cache_gib,
            keep_all=keep_all,
        )
    )
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False, indent=2))
        return
    print_sweep(result)
    typer.echo(f"Table: {folder / 'sweep.md'}. Best recipe: {folder / BEST}")
    loss = result["trials"][0]["values"].get(LOSS)
    typer.echo(describe_next(write_command("train", folder / BEST, ("--loss", loss))))
