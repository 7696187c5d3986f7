"""More commands of this room: `sentifactory sweep`, and the comparison of methods behind `make bench-methods`."""

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
        typer.Option("--space", metavar="SPACE.yaml", help="What is searched: keys with lists of values or ranges."),
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search", metavar="KEY=VALUES", help="The same on the command line, as in 'learning_rate=[1e-4, 3e-4]'."
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option("--trials", help="Trials in all; a continued sweep counts its earlier ones.")
    ] = 20,
    output_dir: Annotated[Path, typer.Option("--output_dir", help="The sweep's folder.")] = Path("saves/sweep"),
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="What the recipe's reviews are asked: a name, or a YAML file.  [that of the manifest beside them]",
        ),
    ] = None,
    val_path: Annotated[
        Path | None, typer.Option("--val_path", help="Reviews to choose by. [val.csv beside the training file]")
    ] = None,
    val_samples: Annotated[
        int | None, typer.Option("--val_samples", min=1, help="Most reviews to choose by. [all]")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the proposals, and of the sample.")] = 42,
    trunk_cache_gib: Annotated[
        float | None, typer.Option("--trunk_cache_gib", min=0, help="As for `sentifactory train`.")
    ] = None,
    keep_all: Annotated[
        bool, typer.Option("--keep_all", help="Keep the weights of all trials, not the best alone.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else.")
    ] = False,
) -> None:
    """Search a recipe's settings: sentifactory sweep FILE.yaml --space SPACE.yaml [key=value ...].

    Every trial trains the recipe with other settings, and is judged by the macro-F1 of scored labels on validation
    reviews; test reviews are not looked at. `task` in the search space asks the same reviews in other words. The table
    is sweep.md, the best recipe best.yaml, both in the sweep's folder. The same command continues a sweep that was
    killed.
    """
    from sentifactory.training.sweep import run_sweep
    from sentifactory.training.sweep_plan import SweepOptions
    from sentifactory.training.sweep_report import BEST, print_sweep

    result = run_sweep(
        SweepOptions(
            recipe=recipe,
            overrides=tuple(context.args),
            space_file=space,
            search=tuple(search or ()),
            output_dir=output_dir,
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
    typer.echo(f"Table: {output_dir / 'sweep.md'}. Best recipe: {output_dir / BEST}")


def bench_methods(
    recipe: Annotated[Path, typer.Option(help="A LLaMA-Factory training YAML.")] = Path(
        "examples/train_freeze/gemma3_270m_freeze_demo.yaml"
    ),
    methods: Annotated[
        str, typer.Option(help="Which ways of tuning, with commas.")
    ] = "freeze_2,freeze_6,freeze_12,full,lora,label",
    reviews: Annotated[int, typer.Option(min=1, help="Training reviews.")] = 1600,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each way.")] = 3,
    val_samples: Annotated[
        int | None, typer.Option("--val_samples", min=1, help="Most reviews to judge by. [all]")
    ] = None,
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Where the figures go.")] = Path("saves/bench"),
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[key=value ...]")] = None,
) -> None:
    """Compare ways of tuning on one split: accuracy on validation reviews against training time and peak memory.

    Runs that have ended are kept: the same command continues a comparison that was killed.
    """
    from sentifactory.training.methods import MethodOptions, compare_methods

    chosen = tuple(name.strip() for name in methods.split(",") if name.strip())
    typer.echo(
        compare_methods(MethodOptions(recipe, tuple(overrides or ()), chosen, reviews, seeds, val_samples, output_dir))
    )
